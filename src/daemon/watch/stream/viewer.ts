import type { ServerResponse } from 'node:http';

/** What waits for a page that does not take it; it is left out then, and the page gets the newest when it does. */
const MOST_UNSENT = 256 * 1024;
/** A page that takes nothing for so long is gone. */
const PATIENCE_MS = 30_000;
/** Something is sent at least so often, so that what lies in between does not take the stream for dead. */
const SILENCE_MS = 15_000;

/** A part of what is shown, as text, and its name. */
export interface Section {
  readonly name: string;
  readonly text: string;
}

/** A page that listens. */
export class Viewer {
  readonly #response: ServerResponse;
  readonly #sent = new Map<string, string>();
  /** The number of the last event that it was sent. */
  lastEvent = 0;
  #clogged: number | undefined;
  readonly #now: () => number;
  #spoke: number;

  constructor(response: ServerResponse, now: () => number = () => performance.now()) {
    this.#response = response;
    this.#now = now;
    this.#spoke = now();
  }

  /** Whether it takes something now. Ends it where it has not for too long. */
  takes(): boolean {
    const now = this.#now();
    if (this.#response.writableLength <= MOST_UNSENT) {
      this.#clogged = undefined;
      return true;
    }
    this.#clogged ??= now;
    if (now - this.#clogged > PATIENCE_MS) this.#response.destroy();
    return false;
  }

  /** Sends the sections that it has not got like this. */
  show(sections: readonly Section[]): void {
    for (const { name, text } of sections) {
      if (this.#sent.get(name) === text) continue;
      this.#sent.set(name, text);
      this.#write(`event: ${name}\ndata: ${text}\n\n`);
    }
    if (this.#now() - this.#spoke > SILENCE_MS) this.#write(':\n\n');
  }

  /** Sends what is not to be left out. */
  tell(name: string, text: string): void {
    this.#write(`event: ${name}\ndata: ${text}\n\n`);
  }

  end(): void {
    this.#response.end();
  }

  #write(text: string): void {
    this.#spoke = this.#now();
    this.#response.write(text);
  }
}
