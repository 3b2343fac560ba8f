/** Something that happened, for people. */
export interface WatchEvent {
  /** Counts up by one. */
  readonly number: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly kind: EventKind;
  readonly text: string;
  /** It is something to look at. */
  readonly isBad: boolean;
}

export type EventKind = 'job' | 'client' | 'graph' | 'monitor';

/** More are not kept. */
const MOST = 200;
/** Longer texts are cut. */
const MOST_TEXT = 300;

/** The last events, in memory that does not grow. */
export class EventLog {
  #events: WatchEvent[] = [];
  #count = 0;

  add(kind: EventKind, text: string, isBad = false): void {
    const shown = text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT - 1)}…` : text;
    this.#count++;
    this.#events.push({ number: this.#count, at: Date.now(), kind, text: shown, isBad });
    // In one go now and then: many events must cost little each.
    if (this.#events.length >= 2 * MOST) this.#events = this.#events.slice(-MOST);
  }

  /** How many there were. */
  get count(): number {
    return this.#count;
  }

  /** Those behind a number, the oldest first, as far as they are kept. */
  after(number: number): readonly WatchEvent[] {
    const news = Math.min(this.#count - number, MOST);
    return news <= 0 ? [] : this.#events.slice(-news);
  }
}
