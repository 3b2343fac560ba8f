/**
 * Keeps what remains of a running copy in its resume file, at intervals and at the end of a copy that did not
 * succeed.
 *
 * A range counts as done in the file only when its write had completed and the target was flushed after that, so
 * that neither the death of this process nor a power cut takes it back. A checkpoint is therefore, in this order:
 * take what remains as of now, flush the target, write the file. Nobody stops for it: what the movers complete
 * meanwhile remains until the next one.
 */
import type { Bitmap } from '../../bitmap/index.js';
import { afterWaiting } from '../../util/index.js';
import type { CopyState } from '../ends/index.js';
import type { ResumeFile } from './resume-file.js';

/** Between two checkpoints, each time twice as long, up to the last. */
const FIRST_INTERVAL_MS = 250;
const INTERVAL_MS = 5000;

/** Of a thread's time, writing the file takes one part in this many at most. */
const WRITING_SHARE = 20;

/** The last flush of a copy that was stopped is waited for no longer than this. */
const LAST_FLUSH_MS = 30_000;

/** What has not been moved or zeroed yet, what is in flight included. */
export interface Remains {
  /** Shared by all threads. */
  readonly data: Bitmap;
  readonly zero: Bitmap;
}

export interface CheckpointsOptions {
  file: ResumeFile;
  state: CopyState;
  remains: Remains;
  /** Makes durable what any thread had completed before the call. */
  flush(signal: AbortSignal): Promise<void>;
  /** Told of a flush that failed: what was written before it may be lost, and the copy must not go on. */
  failed(error: unknown): void;
}

export class Checkpoints {
  readonly #options: CheckpointsOptions;
  readonly #limit = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #intervalMs = FIRST_INTERVAL_MS;
  #running: Promise<void> = Promise.resolve();
  #ended = false;
  /** The memory must not be touched any more. */
  #lost = false;
  /** Nothing can be confirmed any more: the next flush would succeed without what this one has lost. */
  #flushFailure: unknown;
  /** By the last checkpoint. */
  #remainingBytes: number | undefined;
  #warning: string | undefined;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  get remains(): Remains {
    return this.#options.remains;
  }

  /** Bytes that a later run has to do, by the file; undefined before the first checkpoint. */
  get remainingBytes(): number | undefined {
    return this.#remainingBytes;
  }

  get warnings(): string[] {
    return this.#warning === undefined ? [] : [this.#warning];
  }

  /**
   * Makes the first checkpoint, before anything is written to the target, then one after another.
   *
   * @throws what flushing the target throws; LacunaError ERR_RESUME_FILE
   */
  async begin(): Promise<void> {
    await this.#take();
    this.#wait(0);
  }

  /**
   * Makes no more checkpoints, and waits for the one that is being made.
   *
   * @throws what a flush has failed with: what was written before it may be lost
   */
  async end(): Promise<void> {
    this.#end();
    await this.#running;
    if (this.#flushFailure !== undefined) throw this.#flushFailure;
  }

  /**
   * Makes the last checkpoint of a copy that failed or was stopped, when nothing is in flight any more. Never
   * fails: where it cannot be made, the one before stands.
   */
  async keep(): Promise<void> {
    this.#end();
    const stopWaiting = afterWaiting(LAST_FLUSH_MS, () => this.#limit.abort());
    await this.#running;
    if (!this.#lost) await this.#take().catch(() => {});
    stopWaiting();
  }

  /** Makes no more checkpoints: a thread was lost, and may have left memory locked for ever. */
  abort(): void {
    this.#lost = true;
    this.#end();
    this.#limit.abort();
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  #wait(writeMs: number): void {
    if (this.#ended) return;
    const waitMs = Math.max(this.#intervalMs, writeMs * WRITING_SHARE);
    this.#intervalMs = Math.min(INTERVAL_MS, this.#intervalMs * 2);
    this.#timer = setTimeout(() => {
      this.#running = this.#next();
    }, waitMs);
  }

  async #next(): Promise<void> {
    let writeMs = 0;
    try {
      writeMs = await this.#take();
    } catch (error) {
      if (this.#flushFailure !== undefined) {
        if (!this.#ended) this.#options.failed(error);
        return;
      }
      this.#warning ??= `What remains was not always kept for a later run: ${(error as Error).message}`;
    }
    this.#wait(writeMs);
  }

  /** Returns how long the file took. */
  async #take(): Promise<number> {
    const { file, remains, state } = this.#options;
    const moment = { state, data: remains.data.snapshot(), zero: remains.zero.snapshot() };
    try {
      const remainingBytes = moment.data.dirtyBytes + moment.zero.dirtyBytes;
      if (remainingBytes === this.#remainingBytes) return 0;
      await this.#flush();
      if (this.#lost) return 0;
      const began = performance.now();
      await file.write(moment);
      this.#remainingBytes = remainingBytes;
      return performance.now() - began;
    } finally {
      if (!this.#lost) {
        moment.data.free();
        moment.zero.free();
      }
    }
  }

  async #flush(): Promise<void> {
    if (this.#flushFailure !== undefined) throw this.#flushFailure;
    try {
      await this.#options.flush(this.#limit.signal);
    } catch (error) {
      this.#flushFailure = error;
      throw error;
    }
  }
}
