/** Tells whoever subscribes of jobs that begin, change and end: `node:diagnostics_channel`, see docs/diagnostics.md. */
import { channel } from 'node:diagnostics_channel';
import type { JobProgress, JobState } from './progress.js';

/** What has happened to a job. */
export type JobChange = 'begun' | 'paused' | 'resumed' | 'ready' | 'done' | 'failed' | 'stopped';

/** A job, as those who watch it use it. */
export interface ToldJob {
  readonly state: JobState;
  readonly isReady: boolean;
  progress(): JobProgress;
  pause(): void;
  resume(): void;
  stop(): void;
}

/** The message of the channel `lacuna:job`. */
export interface JobMessage {
  /** The job. When it has `begun`, the part that makes it a job of its kind may not be there yet. */
  readonly job: ToldJob;
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
