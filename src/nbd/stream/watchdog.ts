/** Node's timers count in 32 bits, and fire at once where a time is longer. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Notices that a peer makes no progress. Progress only notes the time; the timer is set anew when it
 * fires, not for every delivery.
 */
export class Watchdog {
  readonly #limitMs: number;
  readonly #expired: () => void;
  #timer: NodeJS.Timeout | undefined;
  #lastProgress = 0;

  /** A limit of 0 never expires. */
  constructor(limitMs: number, expired: () => void) {
    this.#limitMs = limitMs;
    this.#expired = expired;
  }

  /** Watches from now on, unless it does already. */
  watch(): void {
    if (this.#timer !== undefined || this.#limitMs === 0) return;
    this.#lastProgress = performance.now();
    this.#arm(this.#limitMs);
  }

  progress(): void {
    if (this.#timer !== undefined) this.#lastProgress = performance.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(delayMs: number): void {
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        const restMs = this.#lastProgress + this.#limitMs - performance.now();
        if (restMs > 0) this.#arm(restMs);
        else this.#expired();
      },
      Math.min(delayMs, LONGEST_TIMER_MS),
    );
  }
}
