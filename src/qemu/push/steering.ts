/** Changes the speed of QEMU's jobs while they push, and lets them stand and go on. */
import { LacunaError } from '../../errors/index.js';
import type { Monitor } from '../../qmp/index.js';
import { isSound } from '../view/index.js';

/** How far a push is. */
export interface PushProgress {
  /** Bytes that have landed, zeroes included. */
  readonly doneBytes: number;
  /** Bytes that must land. */
  readonly totalBytes: number;
}

/** What a job of QEMU's is told. */
interface Told {
  /** Bytes per second; 0 for no limit. */
  speed: number;
  isPaused: boolean;
}

export interface SteeringOptions {
  readonly monitor: Monitor;
  /** The ids of the jobs. */
  readonly jobs: readonly string[];
  /** Bytes per second, of all jobs together, that they are begun with. */
  readonly rate: number | undefined;
  /** Told why a job that goes on cannot be steered. */
  readonly failed: (why: string, cause: unknown) => void;
}

/** The speed of a job where so many share a rate: as QEMU counts it, whole bytes, and 0 for no limit. */
export function speedOf(rate: number | undefined, jobs: number): number {
  return rate === undefined ? 0 : Math.ceil(rate / jobs);
}

/** Several jobs that share a rate. A change is not waited for: QEMU is told of one after the other. */
export class Steering {
  readonly #options: SteeringOptions;
  /** What each job that goes on was told last. */
  readonly #told: Map<string, Told>;
  #rate: number | undefined;
  #isPaused = false;
  #isStopped = false;
  #isTelling = false;

  constructor(options: SteeringOptions) {
    const { jobs, rate } = options;
    this.#options = options;
    this.#rate = rate;
    const speed = speedOf(rate, jobs.length);
    this.#told = new Map(jobs.map((job) => [job, { speed, isPaused: false }]));
  }

  setRate(rate: number | undefined): void {
    this.#rate = rate;
    void this.#tell();
  }

  pause(isPaused: boolean): void {
    this.#isPaused = isPaused;
    void this.#tell();
  }

  /** The others share its part of the rate. */
  ended(job: string): void {
    this.#told.delete(job);
    void this.#tell();
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#isStopped = true;
  }

  async #tell(): Promise<void> {
    // What has changed meanwhile is seen by the one that tells.
    if (this.#isTelling) return;
    this.#isTelling = true;
    try {
      for (let step = this.#next(); step !== undefined; step = this.#next()) await step();
    } finally {
      this.#isTelling = false;
    }
  }

  /** What is to be told next; undefined where all is as it shall be. */
  #next(): (() => Promise<void>) | undefined {
    if (this.#isStopped) return undefined;
    const speed = speedOf(this.#rate, this.#told.size);
    for (const [job, told] of this.#told) {
      if (told.speed !== speed) {
        return () =>
          this.#tellJob(job, { ...told, speed }, 'block-job-set-speed', { device: job, speed });
      }
      if (told.isPaused !== this.#isPaused) {
        const isPaused = this.#isPaused;
        const command = isPaused ? 'job-pause' : 'job-resume';
        return () => this.#tellJob(job, { ...told, isPaused }, command, { id: job });
      }
    }
    return undefined;
  }

  async #tellJob(job: string, told: Told, command: string, args: object): Promise<void> {
    try {
      // Carried out twice, it does no harm.
      await this.#options.monitor.executeOnce(command, args, { isDone: async () => false });
    } catch (error) {
      await this.#refused(job, command, error as Error);
    }
    // It may have ended meanwhile.
    if (this.#told.has(job)) this.#told.set(job, told);
  }

  /** Finds out whether that matters: a job that has ended needs nothing, and one that is paused is not paused again. */
  async #refused(job: string, command: string, error: Error): Promise<void> {
    const { monitor, failed } = this.#options;
    if (!(error instanceof LacunaError && error.code === 'ERR_QMP_COMMAND')) {
      // That QEMU does not answer any more is told by who watches the jobs.
      this.stop();
      return;
    }
    const jobs = await monitor.execute('query-jobs').catch(() => []);
    const isThere = jobs.some(({ id, status }) => id === job && isSound(status));
    if (!isThere) this.#told.delete(job);
    else if (command === 'block-job-set-speed') {
      this.stop();
      failed(`the speed of its job "${job}" cannot be changed: ${error.message}`, error);
    }
  }
}
