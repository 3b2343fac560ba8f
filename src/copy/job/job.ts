import { checkRate, Job, type JobCounts } from '../../job/index.js';
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

const NOTHING: JobCounts<CopyProgress> = {
  phase: 'plan',
  totalBytes: 0,
  doneBytes: 0,
  movedBytes: 0,
  zeroedBytes: 0,
  resumedBytes: 0,
  retries: 0,
};

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

/** A copy as a job. Plans are still made while it is paused. */
export class CopyJob extends Job<CopyReport, CopyProgress> {
  readonly #made: { run?: CopyRun };

  /** @internal Use {@link copy}. */
  constructor(options: CopyOptions) {
    const made: { run?: CopyRun } = {};
    super({
      what: 'a copy',
      rate: options.rate,
      signal: options.signal,
      work: (control) => {
        made.run = new CopyRun(options, control);
        return made.run.start();
      },
      counted: () => made.run?.counted() ?? NOTHING,
    });
    this.#made = made;
  }

  /**
   * After a failure or a cancel of a copy with `resume`: the file that a later run goes on from, and how much it
   * has to do. Undefined where nothing is kept, because nothing had been begun.
   */
  get resumable(): { file: string; remainingBytes: number } | undefined {
    return this.#made.run?.resumable;
  }

  /**
   * After a failure or a cancel of a copy to a file that no later run goes on with: where that file was left, under a
   * name that says that it is not whole. Undefined where there is none, or none was made.
   */
  get unfinished(): string | undefined {
    return this.#made.run?.unfinished;
  }

  /**
   * After a failure or a cancel of a copy that was written in place, and that no later run goes on with: the target, which
   * holds a part of the copy, and else what it held before. Undefined where nothing was written.
   */
  get partlyWritten(): string | undefined {
    return this.#made.run?.partlyWritten;
  }

  /**
   * After a failure or a cancel of a copy that makes an image on a device: that device, which holds a part of the image now,
   * and is no image to anybody; no later run goes on with it. Undefined where what it held before is still there.
   */
  get partOfImage(): string | undefined {
    return this.#made.run?.partOfImage;
  }
}
