import type { SteerableJob } from '../../../job/index.js';

/** A job as it is watched and steered: every job of this package is one. */
export interface SteeredJob extends SteerableJob {
  /** Lets its result come into use; only of jobs that do not end by themselves. */
  complete?(): Promise<unknown>;
  /** Ends it, and leaves its result beside; only of jobs that do not end by themselves. */
  cancel?(): Promise<void>;
  /** Lets it end that is pending; only of jobs of a graph. */
  finalize?(): Promise<unknown>;
  /** Switches how writes get to its target; only of mirrors. */
  change?(change: { copyMode: 'background' | 'write-blocking' }): void;
}

/** A job with its name. */
export interface WatchedJob {
  /** Unique among those that are listed. */
  readonly id: string;
  /** What it is: `backup`, `mirror` and so on. */
  readonly type: string;
  /** The nodes that it works on, by name. */
  readonly nodes?: readonly string[];
  readonly job: SteeredJob;
}

/** A backup that somebody asks for. */
export interface BackupWish {
  /** The node that is backed up. */
  readonly node: string;
  /** The file that is made. */
  readonly target: string;
  readonly format: 'qcow2' | 'raw';
  /** Bytes per second; absent for as fast as it goes. */
  readonly rate?: number;
}

/** The jobs that are shown, and how one more is begun. */
export interface WatchedJobs {
  /** Those that run, and those that have ended and are still to be shown; the oldest first. */
  list(): readonly WatchedJob[];
  /**
   * Begins a backup into a new file, and lists it.
   *
   * @throws where it cannot begin
   */
  startBackup(wish: BackupWish): Promise<WatchedJob>;
  /** Takes a job that has ended out of the list. */
  dismiss(id: string): void;
}

/** Whether a job has come to its end, well or not. */
export function hasEnded({ state }: Pick<SteerableJob, 'state'>): boolean {
  return state === 'done' || state === 'failed' || state === 'stopped';
}
