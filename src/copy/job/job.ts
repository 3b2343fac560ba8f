import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkRate } from '../../job/index.js';
import { checkKnown } from '../../util/index.js';
import {
  type CopyOptions,
  type CopyProgress,
  type CopyReport,
  checkCopyOptions,
  checkPolicies,
  checkScope,
  checkTargetIsZero,
  isPartial,
} from '../options/index.js';
import { CopyRun, checkTransfer } from '../run/index.js';

/** What `CopyJob.on` tells of, and with what. */
export interface CopyEvents {
  /** About ten times a second, and at the end. */
  progress: [progress: CopyProgress];
  /** The caller has paused the copy; what is in flight may still complete. */
  paused: [];
  /** The copy goes on, after a pause or a failure that had stopped it. */
  resumed: [];
  /** A failure has stopped the copy, as its side's policy says, until it is resumed. */
  stopped: [error: Error];
  /** The copy is done. */
  done: [report: CopyReport];
  /** The copy has failed, or was ended. Who listens to this is told, as one who awaits the job. */
  failed: [error: unknown];
}

const EVENTS = Object.keys({
  progress: true,
  paused: true,
  resumed: true,
  stopped: true,
  done: true,
  failed: true,
} satisfies Record<keyof CopyEvents, true>);

/** Between two moments of progress. */
const PROGRESS_MS = 100;

/**
 * Starts copying a source to a target, moving only what has to move.
 *
 * A full copy reads what does not read as zero, by the source's own status, and makes the rest zero unless
 * the target reads as zero there already. An incremental copy does the same with what is dirty alone.
 *
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job:
 *   ERR_JOB_STOPPED after `stop()`, ERR_DEVICE_OPEN, ERR_COPY_MISMATCH, ERR_CONTEXT_UNKNOWN, ERR_DEVICE_IO and
 *   ERR_NBD_*, ERR_WORKER_LOST, with `resume` ERR_RESUME_*, and ERR_ABORTED when `signal` fires.
 */
export function copy(options: CopyOptions): CopyJob {
  checkCopyOptions('copy', options);
  checkTransfer(options);
  checkPolicies(options);
  checkRate(options.rate);
  checkScope(options);
  checkTargetIsZero(options);
  checkPreallocation(options.preallocation);
  if (options.resume === '') throw new TypeError('resume must name a file');
  if (options.digest && isPartial(options)) {
    throw new TypeError(
      'a copy of a part reads only what is dirty: take the digest of its target when it is done',
    );
  }
  if (options.digest && options.resume !== undefined) {
    throw new TypeError(
      'a copy that is resumed does not read all of its data: take the digest of its target when it is done',
    );
  }
  return new CopyJob(options);
}

function checkPreallocation(preallocation: CopyOptions['preallocation'] = 'off'): void {
  if (['off', 'metadata', 'falloc', 'full'].includes(preallocation)) return;
  throw new TypeError(
    `preallocation must be one of off, metadata, falloc, full, not ${preallocation}`,
  );
}

/**
 * A copy that is running: await it for the report, iterate it for progress, or listen to its events.
 *
 * A failure that nobody hears of is an unhandled rejection, as of any promise: of a job that is neither awaited, nor
 * iterated to its end, nor listened to for `failed`.
 */
export class CopyJob implements Promise<CopyReport>, AsyncIterable<CopyProgress> {
  readonly [Symbol.toStringTag] = 'CopyJob';
  readonly #run: CopyRun;
  readonly #events = new EventEmitter<CopyEvents>();
  #tellsProgress = false;
  /** Ends as the copy does. */
  readonly #ended: Promise<CopyReport>;
  /** The same for the caller: it counts as unhandled until the caller, or who acts for him, handles it. */
  readonly #report: Promise<CopyReport>;
  #isAwaited = false;

  /** @internal Use {@link copy}. */
  constructor(options: CopyOptions) {
    const events = this.#events;
    this.#run = new CopyRun(options, {
      paused: () => events.emit('paused'),
      resumed: () => events.emit('resumed'),
      stopped: (error) => this.#tell('stopped', error),
    });
    this.#ended = this.#run.start();
    this.#report = this.#ended.then((report) => report);
    this.#ended.then(
      (report) => this.#tell('done', report),
      (error) => this.#tellFailure(error),
    );
  }

  /** The report, or why there is none. */
  // biome-ignore lint/suspicious/noThenProperty: a job stands for its report, so that it can be awaited.
  then<Done = CopyReport, Failed = never>(
    done?: ((report: CopyReport) => Done | PromiseLike<Done>) | null,
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<Done | Failed> {
    return this.#await().then(done, failed);
  }

  /** Handles the failure, as of any promise. */
  catch<Failed = never>(
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<CopyReport | Failed> {
    return this.#await().catch(failed);
  }

  /** Calls `settled` when the copy has ended, well or not. */
  finally(settled?: (() => void) | null): Promise<CopyReport> {
    return this.#await().finally(settled);
  }

  /**
   * Begins no request for data until {@link resume}; those in flight are finished. Plans are still made meanwhile.
   * Pausing what is paused does nothing.
   */
  pause(): void {
    this.#run.pause();
  }

  /** Goes on, also where a failure had stopped the copy: then what failed is tried again. */
  resume(): void {
    this.#run.resume();
  }

  /**
   * Bytes per second from now on; undefined for as fast as it goes.
   *
   * @throws RangeError when it is not 1 or more.
   */
  setRate(bytesPerSecond: number | undefined): void {
    checkRate(bytesPerSecond);
    this.#run.setRate(bytesPerSecond);
  }

  /**
   * Ends the copy early: requests in flight are finished and made durable, and the job rejects with
   * ERR_JOB_STOPPED. To end it at once, fire the signal. A copy that is done meanwhile is done.
   */
  stop(): void {
    this.#run.stop();
  }

  /**
   * Calls `listener` whenever `event` happens. What a listener throws is an exception that nobody caught, as of any
   * emitter: it does not become the copy's failure. Where the process outlives it, the copy goes on.
   */
  on<Name extends keyof CopyEvents>(
    event: Name,
    listener: (...args: CopyEvents[Name]) => void,
  ): this {
    checkKnown('a copy', 'event', event, EVENTS);
    this.#events.on(event, listener as never);
    if (event === 'progress' && !this.#tellsProgress) void this.#tellProgress();
    return this;
  }

  /** Calls `listener` no more. */
  off<Name extends keyof CopyEvents>(
    event: Name,
    listener: (...args: CopyEvents[Name]) => void,
  ): this {
    checkKnown('a copy', 'event', event, EVENTS);
    this.#events.off(event, listener as never);
    return this;
  }

  /** How far the copy is now. */
  progress(): CopyProgress {
    return this.#run.progress();
  }

  /**
   * After a failure or a cancel of a copy with `resume`: the file that a later run goes on from, and how much it
   * has to do. Undefined where nothing is kept, because nothing had been begun.
   */
  get resumable(): { file: string; remainingBytes: number } | undefined {
    return this.#run.resumable;
  }

  /**
   * After a failure or a cancel of a copy to a file that no later run goes on with: where that file was left, under a
   * name that says that it is not whole. Undefined where there is none, or none was made.
   */
  get unfinished(): string | undefined {
    return this.#run.unfinished;
  }

  /**
   * After a failure or a cancel of a copy that was written in place, and that no later run goes on with: the target, which
   * holds a part of the copy, and else what it held before. Undefined where nothing was written.
   */
  get partlyWritten(): string | undefined {
    return this.#run.partlyWritten;
  }

  /** A moment of progress about ten times a second, a last one at the end, then the failure, if any. */
  async *[Symbol.asyncIterator](): AsyncIterator<CopyProgress> {
    // The loop is told at its end; what fails before that must not count as unhandled meanwhile.
    this.#report.catch(() => {});
    let isTold = false;
    try {
      yield* this.#moments();
      isTold = true;
      await this.#ended;
    } finally {
      if (!isTold) this.#leaveUntold();
    }
  }

  async *#moments(): AsyncGenerator<CopyProgress> {
    const ended = new AbortController();
    const end = () => ended.abort();
    this.#ended.then(end, end);
    while (!ended.signal.aborted) {
      yield this.progress();
      await sleep(PROGRESS_MS, undefined, { signal: ended.signal }).catch(() => {});
    }
    yield this.progress();
  }

  #await(): Promise<CopyReport> {
    this.#isAwaited = true;
    return this.#report;
  }

  /** A loop was left early: the failure is nobody's again, unless somebody awaits the job by the time it happens. */
  #leaveUntold(): void {
    void this.#ended.catch((error) => {
      if (!this.#isAwaited && this.#events.listenerCount('failed') === 0) throw error;
    });
  }

  async #tellProgress(): Promise<void> {
    this.#tellsProgress = true;
    for await (const progress of this.#moments()) this.#tell('progress', progress);
  }

  #tellFailure(error: unknown): void {
    if (this.#events.listenerCount('failed') === 0) return;
    this.#report.catch(() => {});
    this.#tell('failed', error);
  }

  /** Tells of what the engine did by itself, where no caller could catch what a listener throws. */
  #tell<Name extends keyof CopyEvents>(event: Name, ...args: CopyEvents[Name]): void {
    try {
      this.#events.emit(event, ...(args as never));
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }
}
