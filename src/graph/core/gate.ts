import { abortedError } from '../../errors/index.js';
import { onAbort } from '../../util/index.js';

interface Waiter {
  readonly admit: () => void;
}

/**
 * What requests pass where they enter a graph, and where they are counted until they have ended. It is closed by counts: what
 * two sections have closed is open when both have opened it.
 */
export class Gate {
  readonly #waiting = new Set<Waiter>();
  #closed = 0;
  #inFlight = 0;
  #idle: (() => void)[] = [];

  /** Requests that have entered and not left. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * Counts a request. A promise where it has to wait first; it is counted by the time that resolves.
   *
   * @throws in the promise: LacunaError ERR_ABORTED when the signal fires while it waits. It was never counted then.
   */
  enter(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#closed > 0) return this.#wait(signal);
    this.#inFlight++;
    return undefined;
  }

  /** Ends a request. */
  leave(): void {
    this.#inFlight--;
    if (this.#inFlight > 0) return;
    const idle = this.#idle;
    this.#idle = [];
    for (const tell of idle) tell();
  }

  /** Lets nobody in from now on. */
  close(): void {
    this.#closed++;
  }

  /** Takes one `close` back. Those who wait are counted here, so that nobody comes between. */
  open(): void {
    this.#closed--;
    if (this.#closed > 0) return;
    for (const waiter of this.#waiting) {
      this.#inFlight++;
      waiter.admit();
    }
    this.#waiting.clear();
  }

  /** Resolves when nothing is in flight; at once where that is so now. */
  idle(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #wait(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(abortedError(signal));
      const giveUp = () => {
        if (this.#waiting.delete(waiter)) reject(abortedError(signal));
      };
      const waiter: Waiter = {
        admit: () => {
          signal?.removeEventListener('abort', giveUp);
          resolve();
        },
      };
      this.#waiting.add(waiter);
      if (signal !== undefined) onAbort(signal, giveUp);
    });
  }
}
