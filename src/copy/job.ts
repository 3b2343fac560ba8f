import { setTimeout as sleep } from 'node:timers/promises';
import { CopyRun } from './copy-run.js';
import type { CopyOptions, CopyProgress, CopyReport } from './options.js';
import { checkScope, isPartial } from './plan-walk.js';
import { checkTransfer } from './transfer.js';

/** Between two moments of progress. */
const PROGRESS_MS = 100;

/**
 * Starts copying a source to a target, moving only what has to move.
 *
 * A full copy reads what does not read as zero, by the source's own status, and makes the rest zero unless
 * the target reads as zero there already. An incremental copy does the same with what is dirty alone.
 *
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job:
 *   ERR_DEVICE_OPEN, ERR_COPY_MISMATCH, ERR_CONTEXT_UNKNOWN, ERR_DEVICE_IO and ERR_NBD_*, ERR_WORKER_LOST,
 *   with `resume` ERR_RESUME_*, and ERR_ABORTED when `signal` fires.
 */
export function copy(options: CopyOptions): CopyJob {
  checkTransfer(options);
  checkScope(options);
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

/** A copy that is running: await it for the report, iterate it for progress. */
export class CopyJob implements Promise<CopyReport>, AsyncIterable<CopyProgress> {
  readonly [Symbol.toStringTag] = 'CopyJob';
  readonly #run: CopyRun;
  readonly #report: Promise<CopyReport>;

  /** @internal Use {@link copy}. */
  constructor(options: CopyOptions) {
    this.#run = new CopyRun(options);
    this.#report = this.#run.start();
    // Whoever only iterates gets the failure from there; it must not count as unhandled as well.
    this.#report.catch(() => {});
  }

  // biome-ignore lint/suspicious/noThenProperty: a job stands for its report, so that it can be awaited.
  then<Done = CopyReport, Failed = never>(
    done?: ((report: CopyReport) => Done | PromiseLike<Done>) | null,
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<Done | Failed> {
    return this.#report.then(done, failed);
  }

  catch<Failed = never>(
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<CopyReport | Failed> {
    return this.#report.catch(failed);
  }

  finally(settled?: (() => void) | null): Promise<CopyReport> {
    return this.#report.finally(settled);
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

  /** A moment of progress about ten times a second, a last one at the end, then the failure, if any. */
  async *[Symbol.asyncIterator](): AsyncIterator<CopyProgress> {
    const ended = new AbortController();
    const end = () => ended.abort();
    this.#report.then(end, end);
    while (!ended.signal.aborted) {
      yield this.progress();
      await sleep(PROGRESS_MS, undefined, { signal: ended.signal }).catch(() => {});
    }
    yield this.progress();
    await this.#report;
  }
}
