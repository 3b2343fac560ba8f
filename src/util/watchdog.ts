/** Node's timers count in 32 bits, and fire at once where a time is longer. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A time is counted in so many parts. */
const TICKS = 8;
/** A tick that is later than this shows that the process did not run, and is not counted. */
const STOPPED_MS = 1000;

export interface WatchdogOptions {
  /** Keep the process alive while it watches. Default true. */
  readonly keepsProcess?: boolean;
}

/**
 * Notices that a peer makes no progress. It counts the time in which this process ran: after it was stopped (SIGSTOP,
 * the lid of a laptop), the peer's answer waits in the socket, while the clock says that the time is long over. So the
 * time is counted in ticks, of which one that comes far too late does not count, and before it expires, the sockets are
 * looked at once more. The limit may be exceeded by an eighth.
 */
export class Watchdog {
  readonly #tickMs: number;
  readonly #expired: () => void;
  readonly #keepsProcess: boolean;
  #timer: NodeJS.Timeout | undefined;
  #look: NodeJS.Immediate | undefined;
  #ticks = 0;

  /** A limit of 0 never expires. */
  constructor(limitMs: number, expired: () => void, { keepsProcess = true }: WatchdogOptions = {}) {
    this.#tickMs = Math.min(limitMs, LONGEST_TIMER_MS) / TICKS;
    this.#expired = expired;
    this.#keepsProcess = keepsProcess;
  }

  /** Watches from now on, unless it does already. */
  watch(): void {
    if (this.#timer !== undefined || this.#look !== undefined || this.#tickMs === 0) return;
    this.#ticks = 0;
    this.#arm();
  }

  progress(): void {
    // The tick that has begun before does not count.
    this.#ticks = -1;
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#look);
    this.#timer = undefined;
    this.#look = undefined;
  }

  #arm(): void {
    const due = performance.now() + this.#tickMs;
    this.#timer = setTimeout(() => this.#tick(performance.now() - due), this.#tickMs);
    if (!this.#keepsProcess) this.#timer.unref();
  }

  #tick(lateMs: number): void {
    this.#timer = undefined;
    if (lateMs < STOPPED_MS) this.#ticks++;
    if (this.#ticks < TICKS) {
      this.#arm();
      return;
    }
    // Runs behind what the sockets have.
    this.#look = setImmediate(() => {
      this.#look = undefined;
      if (this.#ticks < TICKS) this.#arm();
      else this.#expired();
    });
  }
}

/**
 * Calls back when this process has run for so long, and has seen what its sockets had by then.
 *
 * @returns ends the waiting
 */
export function afterWaiting(
  limitMs: number,
  then: () => void,
  options?: WatchdogOptions,
): () => void {
  const watchdog = new Watchdog(Math.max(limitMs, 1), then, options);
  watchdog.watch();
  return () => watchdog.stop();
}
