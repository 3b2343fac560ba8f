import type { GraphJob, LiveJob } from '../../graph/index.js';
import type { Job, JobProgress, JobState } from '../../job/index.js';
import { refusal } from './refusal.js';

/** What kinds of jobs there are. */
export const JOB_TYPES = ['backup', 'mirror', 'commit', 'stream', 'create', 'populate'] as const;
export type JobType = (typeof JOB_TYPES)[number];

/** Tells all clients of an event. */
export type Tell = (event: string, data?: object) => void;

/** How a job is listed. */
export interface JobListing {
  readonly id: string;
  readonly type: JobType;
  /** Whether it ends by itself when its work is done. */
  readonly autoFinalize: boolean;
  /** Whether it disappears by itself when it has ended. */
  readonly autoDismiss: boolean;
  /** Bytes per second; 0 for no limit. */
  readonly speed: number;
}

/** Where a job is; see JobStatus in qapi/job.json of QEMU. */
export const JOB_STATUSES = [
  ...['undefined', 'created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending'],
  ...['aborting', 'concluded', 'null'],
] as const;
export type JobStatus =
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

/** What can be done to a job, and in which states. */
const VERBS = {
  cancel: ['running', 'paused', 'ready', 'standby', 'waiting', 'pending'],
  pause: ['running', 'paused', 'ready', 'standby'],
  resume: ['running', 'paused', 'ready', 'standby'],
  'set-speed': ['running', 'paused', 'ready', 'standby'],
  change: ['running', 'paused', 'ready', 'standby'],
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
} as const;
export type JobVerb = keyof typeof VERBS;

/** A job as clients see it: QEMU's states are made of what the job tells. */
export class DaemonJob {
  readonly id: string;
  readonly type: JobType;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly job: Job<unknown, JobProgress>;
  /** Bytes per second; 0 for no limit. */
  speed: number;
  readonly #tell: Tell;
  readonly #forget: () => void;
  readonly #ended: Promise<void>;
  #status: JobStatus = 'running';
  #isReady = false;
  #error: string | undefined;
  /** What it waits for a human about. */
  #problem: Error | undefined;

  constructor(
    { id, type, autoFinalize, autoDismiss, speed }: JobListing,
    job: Job<unknown, JobProgress>,
    tell: Tell,
    forget: () => void,
  ) {
    this.id = id;
    this.type = type;
    this.autoFinalize = autoFinalize;
    this.autoDismiss = autoDismiss;
    this.speed = speed;
    this.job = job;
    this.#tell = tell;
    this.#forget = forget;
    this.#become('created');
    this.#become('running');
    if (job.isReady) this.#becomeReady();
    this.#comeTo(job.state);
    job.on('ready', () => this.#becomeReady());
    job.on('waiting', () => this.#comeTo('waiting'));
    job.on('pending', () => this.#comeTo('pending'));
    job.on('paused', (error) => this.#paused(error));
    job.on('resumed', () => this.#resumed());
    this.#ended = job.then(
      () => this.#done(),
      (error) => this.#failed(error),
    );
  }

  /** Whether `block-job-` commands are for it too. */
  get isBlockJob(): boolean {
    return this.type !== 'create' && this.type !== 'populate';
  }

  get status(): JobStatus {
    return this.#status;
  }

  /** Why it has failed. */
  get error(): string | undefined {
    return this.#error;
  }

  allows(verb: JobVerb): boolean {
    return (VERBS[verb] as readonly string[]).includes(this.#status);
  }

  /** JobInfo. */
  info() {
    const { id, type, status } = this;
    const { totalBytes, doneBytes } = this.job.progress();
    return {
      id,
      type,
      status,
      'current-progress': doneBytes,
      'total-progress': totalBytes,
      ...(this.#error !== undefined && { error: this.#error }),
    };
  }

  /** BlockJobInfo. */
  blockInfo() {
    const { totalBytes, doneBytes } = this.job.progress();
    const { id: device, type, status, speed } = this;
    return {
      ...{ type, device, len: totalBytes, offset: doneBytes },
      busy: status === 'running',
      paused: this.job.state === 'paused',
      speed,
      'io-status': ioStatusOf(this.#problem),
      ready: status === 'ready' || status === 'standby',
      status,
      'auto-finalize': this.autoFinalize,
      'auto-dismiss': this.autoDismiss,
      ...(this.#error !== undefined && { error: this.#error }),
    };
  }

  /** @throws QmpCommandError */
  pause(): void {
    if (this.job.state === 'paused') throw refusal('Job is already paused');
    this.job.pause();
  }

  /** @throws QmpCommandError */
  resume(): void {
    if (this.job.state !== 'paused') throw refusal("Can't resume a job that was not paused");
    this.job.resume();
  }

  setSpeed(bytesPerSecond: number): void {
    if (bytesPerSecond < 0) {
      throw refusal("Parameter 'speed' expects a non-negative value");
    }
    this.job.setRate(bytesPerSecond === 0 ? undefined : bytesPerSecond);
    this.speed = bytesPerSecond;
  }

  /** Lets its target come into use. What keeps it from that is told when it is asked for again, or by the state. */
  complete(): void {
    if (!('complete' in this.job)) {
      throw refusal(`The active block job '${this.id}' cannot be completed`);
    }
    (this.job as LiveJob<unknown>).complete().catch((error) => this.#notCompleted(error));
  }

  /** Lets it end that waits for that, and with it all jobs of its transaction. */
  finalize(): void {
    (this.job as GraphJob<unknown>).finalize().catch((error) => this.#notCompleted(error));
  }

  /** @param force also where it is ready, and would else bring its target up to date first. */
  cancel(force: boolean): void {
    const isEnding = this.#status === 'waiting' || this.#status === 'pending';
    if ('cancel' in this.job && !isEnding) {
      (this.job as LiveJob<unknown>).cancel({ force }).catch((error) => this.#notCompleted(error));
    } else this.job.stop();
  }

  /** Makes it disappear. */
  dismiss(): void {
    this.#become('null');
    this.#forget();
  }

  /** Ends it early, and waits for that. */
  async stop(): Promise<void> {
    this.job.stop();
    await this.#ended;
  }

  /** It goes on then; clients that wait for its end would wait in vain. */
  #notCompleted(error: unknown): void {
    const { state } = this.job;
    if (state === 'done' || state === 'failed' || state === 'stopped') return;
    const message = error instanceof Error ? error.message : String(error);
    this.#tell('JOB_END_REFUSED', { id: this.id, error: message });
  }

  #becomeReady(): void {
    this.#isReady = true;
    this.#become('ready');
    if (this.isBlockJob) this.#tell('BLOCK_JOB_READY', this.#blockEvent());
  }

  #paused(error: Error | undefined): void {
    this.#problem = error;
    if (error !== undefined && this.isBlockJob) {
      const operation = isOfTarget(error) ? 'write' : 'read';
      this.#tell('BLOCK_JOB_ERROR', { device: this.id, operation, action: 'stop' });
    }
    this.#become(this.#isReady ? 'standby' : 'paused');
  }

  #resumed(): void {
    this.#problem = undefined;
    this.#become(this.#isReady ? 'ready' : 'running');
    this.#comeTo(this.job.state);
  }

  /** Its work is done. It waits for other jobs of its transaction, and then to be finalized; both are passed in any case. */
  #comeTo(state: JobState): void {
    if (state !== 'waiting' && state !== 'pending') return;
    if (this.#status !== 'waiting') this.#become('waiting');
    if (state === 'waiting') return;
    this.#become('pending');
    if (this.isBlockJob) this.#tell('BLOCK_JOB_PENDING', { type: this.type, id: this.id });
  }

  #done(): void {
    if (this.#status !== 'waiting' && this.#status !== 'pending') this.#become('waiting');
    if (this.#status !== 'pending') this.#become('pending');
    if (this.isBlockJob) this.#tell('BLOCK_JOB_COMPLETED', this.#blockEvent());
    this.#conclude();
  }

  #failed(error: unknown): void {
    this.#become('aborting');
    const wasCancelled = this.job.state === 'stopped';
    if (!wasCancelled) this.#error = error instanceof Error ? error.message : String(error);
    if (this.isBlockJob) {
      const data = this.#blockEvent();
      if (wasCancelled) this.#tell('BLOCK_JOB_CANCELLED', data);
      else this.#tell('BLOCK_JOB_COMPLETED', { ...data, error: this.#error });
    }
    this.#conclude();
  }

  #conclude(): void {
    this.#become('concluded');
    if (this.autoDismiss) this.dismiss();
  }

  #become(status: JobStatus): void {
    this.#status = status;
    this.#tell('JOB_STATUS_CHANGE', { status, id: this.id });
  }

  #blockEvent() {
    const { totalBytes, doneBytes } = this.job.progress();
    const { id: device, type, speed } = this;
    return { device, len: totalBytes, offset: doneBytes, speed, type };
  }
}

function ioStatusOf(problem: Error | undefined): 'ok' | 'nospace' | 'failed' {
  if (problem === undefined) return 'ok';
  return errnoOf(problem) === 'ENOSPC' ? 'nospace' : 'failed';
}

/** Only what is written can find no room, or no right to write. */
function isOfTarget(error: Error): boolean {
  return ['ENOSPC', 'EDQUOT', 'EROFS', 'EFBIG'].includes(errnoOf(error) ?? '');
}

function errnoOf(error: Error): string | undefined {
  return (error as { errno?: string }).errno;
}
