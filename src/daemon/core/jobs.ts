import type { Job, JobProgress } from '../../job/index.js';
import { DaemonJob, type JobListing, type JobVerb, type Tell } from './daemon-job.js';
import { isId, refusal } from './refusal.js';

/** The jobs by their names. One stays after its end until it is dismissed. */
export class Jobs {
  readonly #jobs = new Map<string, DaemonJob>();
  /** Names of those that are about to begin. */
  readonly #reserved = new Set<string>();
  readonly #tell: Tell;
  #isEnding = false;
  /** Resolves when all that was asked of the graph before has begun, or has failed. */
  readonly #begun: () => Promise<void>;

  constructor(tell: Tell, begun: () => Promise<void>) {
    this.#tell = tell;
    this.#begun = begun;
  }

  /** All, in the order in which they began. */
  get all(): readonly DaemonJob[] {
    return [...this.#jobs.values()];
  }

  /** @throws QmpCommandError */
  job(id: string): DaemonJob {
    const job = this.#jobs.get(id);
    if (job === undefined) throw refusal('Job not found');
    return job;
  }

  /** @throws QmpCommandError */
  blockJob(id: string): DaemonJob {
    const job = this.#jobs.get(id);
    if (job?.isBlockJob) return job;
    throw refusal(`Block job '${id}' not found`, 'DeviceNotActive');
  }

  /** Does something to a job that its state allows. @throws QmpCommandError */
  allowed(job: DaemonJob, verb: JobVerb): DaemonJob {
    if (job.allows(verb)) return job;
    throw refusal(`Job '${job.id}' in state '${job.status}' cannot accept command verb '${verb}'`);
  }

  /**
   * Checks that a job may have a name.
   *
   * @returns the name
   * @throws QmpCommandError
   */
  checkFree(id = ''): string {
    if (this.#isEnding) throw refusal('the daemon is ending: no job can be begun any more');
    if (!isId(id)) throw refusal(`Invalid job ID '${id}'`);
    if (this.#jobs.has(id) || this.#reserved.has(id))
      throw refusal(`Job ID '${id}' already in use`);
    return id;
  }

  /** A name that nobody has or is about to have. */
  freeName(beginning: string): string {
    for (let count = 1; ; count++) {
      const name = `${beginning}-${count}`;
      if (!this.#jobs.has(name) && !this.#reserved.has(name)) return name;
    }
  }

  /**
   * Begins a job, and lists it if it could begin.
   *
   * @throws what keeps it from beginning; it is not listed then.
   */
  async begin(
    listing: JobListing,
    make: () => Job<unknown, JobProgress> | Promise<Job<unknown, JobProgress>>,
  ): Promise<void> {
    const letGo = this.reserve([listing.id]);
    try {
      // A job is awaited as its end: only an object around it can be handed on.
      const { job } = await made(make);
      job.register();
      await this.#begun();
      if (job.state === 'failed') await job;
      this.add(listing, job);
    } finally {
      letGo();
    }
  }

  /** Keeps names for jobs that are about to begin. @returns lets go of them. @throws QmpCommandError */
  reserve(ids: readonly string[]): () => void {
    const kept: string[] = [];
    const letGo = () => {
      for (const id of kept) this.#reserved.delete(id);
    };
    try {
      for (const id of ids) {
        this.#reserved.add(this.checkFree(id));
        kept.push(id);
      }
    } catch (error) {
      letGo();
      throw error;
    }
    return letGo;
  }

  /** Lists a job that has begun. */
  add(listing: JobListing, job: Job<unknown, JobProgress>): void {
    const listed = new DaemonJob(listing, job, this.#tell, () => this.#jobs.delete(listing.id));
    this.#jobs.set(listing.id, listed);
  }

  /** Stops all that has not ended, and waits for the ends. None can be begun any more. */
  async stop(): Promise<void> {
    this.#isEnding = true;
    await Promise.all(this.all.map((job) => job.stop()));
  }
}

async function made(
  make: () => Job<unknown, JobProgress> | Promise<Job<unknown, JobProgress>>,
): Promise<{ readonly job: Job<unknown, JobProgress> }> {
  const job = make();
  return { job: job as Job<unknown, JobProgress> };
}
