/** What the jobs of a repository tell of themselves, and how they have copies do parts of their work. */
import type { CopyProgress, CopyReport } from '../../copy/index.js';
import type { JobControl, JobCounts, JobProgress, PartJob } from '../../job/index.js';

/** What is done at a moment. */
export type RepositoryStep =
  | 'prepare'
  | 'push'
  | 'compare'
  | 'copy'
  | 'hash'
  | 'read'
  | 'merge'
  | 'commit'
  | 'done';

/** A moment of a job. `totalBytes` grows as the parts of the work become known. */
export interface RepositoryProgress extends JobProgress {
  /** Getting ready, having QEMU push disks, looking for what has changed, copying a disk, hashing what was stored, reading it back, merging, committing. */
  step: RepositoryStep;
  /** The machine that it is about; empty before that is known. */
  machine: string;
  /** The number of the point that it is about; 0 before that is known. */
  point: number;
  /** The disk that it is about; empty where it is about none. */
  disk: string;
}

/** A copy as a part of a job. */
interface CopyPart extends PartJob<CopyReport> {
  on(event: 'paused', listener: (error?: Error) => void): unknown;
  on(event: 'progress', listener: (progress: CopyProgress) => void): unknown;
}

/** Counts what a job has done, over all of its parts. */
export class Tally {
  #step: RepositoryStep = 'prepare';
  #about = { machine: '', point: 0, disk: '' };
  /** Of the parts that have ended. */
  #endedBytes = 0;
  #part = { doneBytes: 0, totalBytes: 0 };

  /** A part of the work begins. */
  begin(
    step: RepositoryStep,
    about: Partial<Record<'machine' | 'disk', string>> & { point?: number } = {},
  ): void {
    this.#endedBytes += this.#part.doneBytes;
    this.#part = { doneBytes: 0, totalBytes: 0 };
    this.#step = step;
    this.#about = { ...this.#about, ...about };
  }

  /** How far the part is. */
  tell({ doneBytes, totalBytes }: { doneBytes: number; totalBytes: number }): void {
    this.#part = { doneBytes, totalBytes };
  }

  /** For the job. */
  readonly counted = (): JobCounts<RepositoryProgress> => ({
    step: this.#step,
    ...this.#about,
    doneBytes: this.#endedBytes + this.#part.doneBytes,
    totalBytes: this.#endedBytes + this.#part.totalBytes,
  });
}

/** What the work of a job is done with. */
export interface Workshop {
  readonly control: JobControl;
  readonly tally: Tally;
  /** Of each copy; by default as it chooses them. */
  readonly threads?: number | undefined;
}

/** Has a copy do a part of the work. */
export async function runCopy({ control, tally }: Workshop, job: CopyPart): Promise<CopyReport> {
  job.on('progress', (progress) => tally.tell(progress));
  return await control.run(job);
}
