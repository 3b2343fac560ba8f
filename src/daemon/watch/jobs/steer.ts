import { hasEnded, type SteeredJob, type WatchedJob, type WatchedJobs } from './watched-job.js';

/** What a request to change a job may say. */
export type Steering =
  | {
      readonly action: 'pause' | 'resume' | 'complete' | 'cancel' | 'finalize' | 'stop' | 'dismiss';
    }
  | { readonly action: 'change'; readonly copyMode: 'background' | 'write-blocking' };

const ACTIONS = [
  ...['pause', 'resume', 'complete', 'cancel', 'finalize', 'stop', 'change', 'dismiss'],
];
const MODES = ['background', 'write-blocking'];

/** @throws TypeError for what is none. */
export function readSteering({ action, copyMode, ...others }: Record<string, unknown>): Steering {
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new TypeError(`there is no "${unknown}": say action, copyMode`);
  if (!ACTIONS.includes(action as string)) {
    throw new TypeError(`action must be one of ${ACTIONS.join(', ')}`);
  }
  if (action !== 'change') {
    if (copyMode !== undefined) throw new TypeError('copyMode goes with the action change alone');
    return { action } as Steering;
  }
  if (!MODES.includes(copyMode as string)) {
    throw new TypeError(`copyMode must be one of ${MODES.join(', ')}`);
  }
  return { action, copyMode } as Steering;
}

/**
 * Does it. What takes until the end of the job is only begun: the job tells how it ends.
 *
 * @param failed hears why that could not be done; the job goes on then.
 * @throws TypeError where the job cannot do it.
 */
export function steer(
  jobs: WatchedJobs,
  { id, job }: WatchedJob,
  steering: Steering,
  failed: (error: unknown) => void,
): void {
  const { action } = steering;
  if (action === 'dismiss') {
    if (!hasEnded(job)) throw new TypeError('the job has not ended: stop it first');
    jobs.dismiss(id);
  } else if (action === 'change') {
    if (job.change === undefined) throw new TypeError('only a mirror has a copy mode');
    job.change({ copyMode: steering.copyMode });
  } else if (action === 'finalize') finalize(job, failed);
  else if (action === 'complete' || action === 'cancel') end(job, action, failed);
  else job[action]();
}

function end(
  job: SteeredJob,
  action: 'complete' | 'cancel',
  failed: (error: unknown) => void,
): void {
  if (job[action] === undefined) {
    throw new TypeError('a job that ends by itself: stop it to end it early');
  }
  if (!job.isReady) throw new TypeError('the job is not ready yet: wait, or stop it');
  // A paused job ends nothing.
  job.resume();
  job[action]().catch((error) => {
    if (!hasEnded(job)) failed(error);
  });
}

function finalize(job: SteeredJob, failed: (error: unknown) => void): void {
  if (job.state !== 'pending' || job.finalize === undefined) {
    throw new TypeError('the job does not wait to be finalized');
  }
  job.finalize().catch((error) => {
    if (!hasEnded(job)) failed(error);
  });
}
