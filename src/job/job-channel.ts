/** Publishes when jobs begin, change and end: `node:diagnostics_channel`, see docs/diagnostics.md. */
import { channel } from 'node:diagnostics_channel';
import type { JobProgress, JobState } from './progress.js';

/** What has happened to a job. */
export type JobChange =
  | 'begun'
  | 'paused'
  | 'resumed'
  | 'ready'
  | 'waiting'
  | 'pending'
  | 'done'
  | 'failed'
  | 'stopped';

/** What who watches a job may ask it and tell it. */
export interface SteerableJob {
  /** What it does now, or how it has ended. */
  readonly state: JobState;
  /** Whether a mirror or a commit may be completed. */
  readonly isReady: boolean;
  /** How far it is. */
  progress(): JobProgress;
  /** Holds it up within a request; does nothing unless it runs. */
  pause(): void;
  /** Lets it go on; does nothing unless it is paused. */
  resume(): void;
  /** Ends it; it fails with ERR_JOB_STOPPED. */
  stop(): void;
}

/** The message of the channel `lacuna:job`. */
export interface JobMessage {
  /** The job. When it has `begun`, the part that makes it a job of its kind may not be there yet. */
  readonly job: SteerableJob;
  /** What it is, as messages call it: `a backup`. */
  readonly what: string;
  /** What has happened to it. */
  readonly event: JobChange;
  /** Why it has `failed` or is `stopped`, or what it waits for a human about when it is `paused`. */
  readonly error?: unknown;
}

const jobs = channel('lacuna:job');

export function tellJob(message: JobMessage): void {
  if (jobs.hasSubscribers) jobs.publish(message);
}
