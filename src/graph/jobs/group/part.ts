import type { Job } from '../../../job/index.js';
import type { Changes } from '../../core/index.js';
import type { JobGroup } from './group.js';

/** A job that begins in a transaction, at one moment with its other parts. */
export interface JobPart<Report> {
  /** The signal that the job is begun with. */
  readonly signal: AbortSignal | undefined;
  /** Opens what the job needs, and tells what happens at its beginning. To be called in a turn. */
  prepare(): Promise<Partial<Changes>>;
  /** Takes back what was opened: the transaction has failed. Harmless where nothing was. */
  takeBack(): Promise<void>;
  /** Begins the work, behind the change. @param group jobs that all succeed or all fail. */
  start(group?: JobGroup): Job<Report>;
}
