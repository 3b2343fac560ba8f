import type { Range } from '../../block/index.js';
import { abortedError } from '../../errors/index.js';
import { checkRate } from '../../job/index.js';
import { Control } from '../control/index.js';

/** Of a limited stream no shorter piece is made. */
const SHORTEST_PIECE = 4096;

/** The report of a copy from or to a stream. */
export interface StreamReport {
  /** Bytes of the stream. */
  size: number;
  /** Bytes written as data. */
  movedBytes: number;
  /** Bytes written as zeroes, without moving data. */
  zeroedBytes: number;
  /** Bytes never touched, because they are zero on both sides. */
  skippedBytes: number;
  /** Ranges of the source that are lost and were taken for zeroes; see `missing` of a CopyReport. */
  missing: Range[];
  /** Milliseconds from the call to the report. */
  durationMs: number;
  /** What a person should know although it succeeded. */
  warnings: string[];
}

/** A copy from or to a stream that is running: await it for the report. */
export interface StreamJob extends Promise<StreamReport> {
  /** After a failure: the file that holds what was written until then, and is not whole; undefined where there is none. */
  readonly unfinished: string | undefined;
  /** Finishes the requests in flight, and takes no more from the stream, or gives it no more, until `resume`. */
  pause(): void;
  /** Goes on after `pause`. */
  resume(): void;
  /**
   * Bytes of the stream per second from now on, zeroes included; undefined for as fast as it goes.
   *
   * @throws RangeError when it is not 1 or more.
   */
  setRate(bytesPerSecond: number | undefined): void;
}

/** What holds for streams of both directions. */
export interface StreamJobOptions {
  /** Bytes of the stream per second at most, zeroes included. Default: as fast as it goes. */
  rate?: number | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

/** Holds a stream back, while its job is paused or faster than it may be. */
export class Brake {
  readonly #control = Control.create(1);
  readonly #signal: AbortSignal | undefined;
  /** What a failure has left, once it has ended the work. */
  unfinished: string | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /** Bytes that are let through at once, so that a slow stream flows evenly. */
  get pieceSize(): number {
    return Math.max(SHORTEST_PIECE, this.#control.pieceSize);
  }

  /** Waits until so many bytes may go. */
  async mayMove(bytes: number): Promise<void> {
    if (!this.#control.paused && !this.#control.isLimited) return;
    if (!(await this.#control.mayMove(bytes))) throw abortedError(this.#signal);
  }

  /** Lets nothing more go: whoever waits, or comes later while the job is paused or limited, fails. */
  stop(): void {
    this.#control.stop();
  }

  /** Runs work that waits for this brake, and lets its caller steer it. */
  static steer(
    { rate, signal }: StreamJobOptions,
    work: (brake: Brake) => Promise<StreamReport>,
  ): StreamJob {
    const brake = new Brake(signal);
    const control = brake.#control;
    const run = async () => {
      checkRate(rate);
      control.setRate(rate);
      const stop = () => control.stop();
      signal?.addEventListener('abort', stop, { once: true });
      try {
        return await work(brake);
      } finally {
        signal?.removeEventListener('abort', stop);
      }
    };
    const job = Object.assign(run(), {
      pause: () => control.pause(),
      resume: () => control.resume(),
      setRate: (bytesPerSecond: number | undefined) => {
        checkRate(bytesPerSecond);
        control.setRate(bytesPerSecond);
      },
    });
    return Object.defineProperty(job, 'unfinished', {
      get: () => brake.unfinished,
    }) as typeof job & Pick<StreamJob, 'unfinished'>;
  }
}
