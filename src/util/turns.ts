import { setImmediate } from 'node:timers/promises';

/** Timers, signals and sockets may wait this long. */
const TURN_MS = 10;

/**
 * Lets the event loop run now and then. Files and memory answer at once, so a loop of requests to them would
 * otherwise keep every timer, signal and message waiting until it ends.
 */
export class Turns {
  #began = performance.now();

  /** To be awaited between requests; ends the turn of the event loop when it has lasted long enough. */
  async next(): Promise<void> {
    if (performance.now() - this.#began <= TURN_MS) return;
    await setImmediate();
    this.#began = performance.now();
  }
}
