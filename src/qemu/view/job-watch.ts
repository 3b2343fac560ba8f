import type { LacunaError } from '../../errors/index.js';
import type { JobInfo, Monitor } from '../../qmp/index.js';
import { EventWatch } from './event-watch.js';

/** A job in one of these works, or will; others are on the way out of it. Draining pauses a job for a moment. */
const SOUND: ReadonlySet<string> = new Set(['created', 'running', 'paused', 'ready', 'standby']);

/** A job that has done all its work, or was told to end, goes through these. */
const ENDING: ReadonlySet<string> = new Set(['waiting', 'pending', 'concluded']);

/** A QEMU that lives listens again at once. */
const RECONNECT_MS = 10_000;

interface Waiter {
  readonly status: string;
  readonly resolve: () => void;
}

/** Whether a job of this status works, or will. */
export function isSound(status: string): boolean {
  return SOUND.has(status);
}

/** What is told of a job that has failed. */
export type JobFailure = (why: string, cause?: unknown) => LacunaError;

/** Looks at a job that writes somewhere, and learns of its end by events. */
export class JobWatch {
  /** The id of the job. */
  readonly job: string;
  readonly #monitor: Monitor;
  readonly #failed: JobFailure;
  readonly #lost: (failure: LacunaError) => void;
  readonly #waiters = new Set<Waiter>();
  readonly #watch: EventWatch<'JOB_STATUS_CHANGE'>;
  #status = '';
  #mayEnd = false;
  #isQemuGone = false;

  constructor(
    monitor: Monitor,
    job: string,
    failed: JobFailure,
    lost: (failure: LacunaError) => void,
  ) {
    this.#monitor = monitor;
    this.job = job;
    this.#failed = failed;
    this.#lost = lost;
    this.#watch = new EventWatch({
      ...{ monitor, events: ['JOB_STATUS_CHANGE'], reconnectMs: RECONNECT_MS },
      catchUp: () => this.look(),
      hear: ({ data }) => (data.id === job ? this.look() : undefined),
      lost: (error) => {
        this.#isQemuGone = !monitor.isConnected;
        lost(failed('QEMU does not answer any more', error));
      },
    });
  }

  /** Begins once the job is there. */
  start(): void {
    this.#watch.start();
  }

  stop(): void {
    this.#watch.stop();
  }

  /** QEMU does not answer any more, so nothing of it can be taken away. */
  get isQemuGone(): boolean {
    return this.#isQemuGone;
  }

  /** Whether the job is in this state now, as far as is known. */
  is(status: string): boolean {
    return this.#status === status;
  }

  /** Resolves when the job has gone into this state; that a job is lost is told by `lost`. */
  until(status: string): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.add({ status, resolve });
      this.#ring();
    });
  }

  /** From here on the job is expected to end. */
  mayEnd(): void {
    this.#mayEnd = true;
  }

  /** Looks at the job now; that it is lost is told by `lost`. */
  async look(): Promise<void> {
    const jobs = await this.#monitor.execute('query-jobs');
    if (this.#watch.isStopped) return;
    const job = jobs.find(({ id }) => id === this.job);
    const failure = this.#failureOf(job);
    if (failure !== undefined) {
      this.#end(this.#failed(failure));
      return;
    }
    this.#status = job!.status;
    this.#ring();
  }

  /** What is wrong with the job; undefined where nothing is. */
  #failureOf(job: JobInfo | undefined): string | undefined {
    if (job === undefined) return `its job "${this.job}" is gone`;
    const { status, error } = job;
    if (error !== undefined) return `its job "${this.job}" has failed: ${error}`;
    if (isSound(status) || (this.#mayEnd && ENDING.has(status))) return undefined;
    return `its job "${this.job}" is ${status}`;
  }

  #end(failure: LacunaError): void {
    this.stop();
    this.#lost(failure);
  }

  #ring(): void {
    for (const waiter of this.#waiters) {
      if (waiter.status !== this.#status) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }
}
