import type { LacunaError } from '../../errors/index.js';
import type { QmpEvent } from '../wire/index.js';

/** An event as a stream hands it out. */
export interface ReceivedEvent extends QmpEvent {
  /** How many events were dropped right before this one, by name, because the stream was full; absent if none were. */
  readonly missed?: Readonly<Record<string, number>>;
}

/**
 * Events in the order in which they came, for a `for await` loop. It holds so many for a reader that is slow; then those that
 * come are dropped, and the next one that is not says what is missing before it.
 *
 * When the connection ends, the loop gets what came before, and then fails with ERR_QMP_DISCONNECTED. Ending the loop,
 * or `close`, ends the stream.
 */
export class EventStream<E extends ReceivedEvent = ReceivedEvent>
  implements AsyncIterableIterator<E>, Disposable
{
  readonly #names: ReadonlySet<string> | undefined;
  readonly #limit: number;
  readonly #ended: () => void;
  readonly #held: E[] = [];
  #missed: Record<string, number> | undefined;
  #failure: LacunaError | undefined;
  #isClosed = false;
  #wake: () => void = () => {};

  /** @internal */
  constructor(names: readonly string[], limit: number, ended: (stream: EventStream<E>) => void) {
    this.#names = names.length === 0 ? undefined : new Set(names);
    this.#limit = limit;
    this.#ended = () => ended(this);
  }

  /** @internal Takes an event that has come. */
  push(event: QmpEvent): void {
    if (this.#isClosed || !(this.#names?.has(event.event) ?? true)) return;
    if (this.#held.length >= this.#limit) {
      // Without a prototype, because the name is the peer's.
      this.#missed ??= Object.create(null) as Record<string, number>;
      this.#missed[event.event] = (this.#missed[event.event] ?? 0) + 1;
      return;
    }
    const missed = this.#missed;
    this.#missed = undefined;
    this.#held.push((missed === undefined ? event : { ...event, missed }) as E);
    this.#wake();
  }

  /** @internal The connection has ended. */
  fail(failure: LacunaError): void {
    this.#failure = failure;
    this.#wake();
  }

  /** Events that wait to be read. */
  get waiting(): number {
    return this.#held.length;
  }

  /** The next event; at the end of the stream, `done`. */
  async next(): Promise<IteratorResult<E, undefined>> {
    for (;;) {
      const event = this.#held.shift();
      if (event !== undefined) return { value: event, done: false };
      if (this.#isClosed) return { value: undefined, done: true };
      if (this.#failure !== undefined) throw this.#failure;
      const last = this.#wake;
      await new Promise<void>((resolve) => {
        this.#wake = () => {
          last();
          resolve();
        };
      });
      this.#wake = () => {};
    }
  }

  /** Ends the stream; a loop calls it when it is left early. */
  async return(): Promise<IteratorResult<E, undefined>> {
    this.close();
    return { value: undefined, done: true };
  }

  /** Ends the stream, and drops what was not read. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#held.length = 0;
    this.#ended();
    this.#wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
