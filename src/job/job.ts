import { EventEmitter } from 'node:events';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { isAborted, throwIfAborted } from '../errors/index.js';
import { checkKnown, optionCheck } from '../util/index.js';
import { JobControl } from './control.js';
import { type JobChange, tellJob } from './job-channel.js';
import { checkRate, type JobOptions, type JobProgress, type JobState } from './progress.js';
import { RateSeries, SAMPLE_MS } from './rate-series.js';
import { isStopped } from './stopped.js';

/** What `Job.on` tells of, and with what. */
export interface JobEvents<Report, Progress extends JobProgress = JobProgress> {
  /** About ten times a second, and at the end. */
  progress: [progress: Progress];
  /**
   * The job is paused; what is in flight may still complete. With an error it waits for a human: `resume()` tries again,
   * `stop()` gives up.
   */
  paused: [error?: Error];
  /** The job goes on, also where it could not end when it was `waiting`. */
  resumed: [];
  /** The work is done, and the job ends together with others. */
  waiting: [];
  /** The work is done, and the job ends when it is told to. */
  pending: [];
  /** A job that does not end by itself has come so far that it may be told to. */
  ready: [];
  /** The job is done. */
  done: [report: Report];
  /** The job has failed, or was stopped. Who listens to this is told, as one who awaits the job. */
  failed: [error: unknown];
}

const EVENTS = Object.keys({
  progress: true,
  paused: true,
  resumed: true,
  waiting: true,
  pending: true,
  ready: true,
  done: true,
  failed: true,
} satisfies Record<keyof JobEvents<unknown>, true>);

/** What work tells of a moment; the job adds the rest. */
export type JobCounts<Progress extends JobProgress = JobProgress> = Omit<
  Progress,
  'state' | 'bytesPerSecond' | 'remainingMs' | 'elapsedMs' | 'error'
>;

/** What a job does. */
export interface JobWork<Report, Progress extends JobProgress = JobProgress> extends JobOptions {
  /** What it is, for messages: `a copy`. */
  readonly what: string;
  /** Does it, and returns the report. It asks `control` before each piece, or has it steer what does the pieces. */
  work(control: JobControl): Promise<Report>;
  /** How far it is now. */
  counted(): JobCounts<Progress>;
  /**
   * A part of it is done, which `work` must bring to an end: it is called even where the signal has fired already. Default false: nothing
   * is done then.
   */
  readonly hasBegun?: boolean;
}

const checkWork = optionCheck<JobWork<unknown>>({
  what: { needed: 'what it is, for messages' },
  work: { needed: 'a function that does it' },
  counted: { needed: 'a function that tells how far it is' },
  hasBegun: 'flag',
  rate: 'any',
  signal: 'signal',
});

/** Between two moments of progress. */
const PROGRESS_MS = 100;

/**
 * Long work with progress and control: await it for the report, iterate it for progress, or listen to its events. Only
 * `stop()` and the signal that it was begun with end it early.
 *
 * A failure that nobody hears of is an unhandled rejection, as of any promise: of a job that is neither awaited, nor
 * iterated to its end, nor listened to for `failed`, nor registered.
 */
export class Job<Report, Progress extends JobProgress = JobProgress>
  implements Promise<Report>, AsyncIterable<Progress>
{
  readonly [Symbol.toStringTag] = 'Job';
  readonly #what: string;
  readonly #counted: () => JobCounts<Progress>;
  readonly #events = new EventEmitter();
  readonly #control: JobControl;
  readonly #started = performance.now();
  readonly #rates = new RateSeries();
  /** Set at the end. */
  #end: { state: JobState; elapsedMs: number; error?: Error } | undefined;
  #ticker: NodeJS.Timeout | undefined;
  /** Ends as the work does. */
  readonly #ended: Promise<Report>;
  /** The same for the caller: it counts as unhandled until the caller, or who acts for him, handles it. */
  readonly #report: Promise<Report>;
  #isAwaited = false;
  /** Whether those who watch know of it. */
  #isBegun = false;
  /** Loops that are told of the end. */
  #loops = 0;

  /**
   * Begins the work.
   *
   * @throws TypeError for options that are not known or missing; RangeError for a rate that is not 1 or more.
   */
  constructor(options: JobWork<Report, Progress>) {
    checkWork('Job', options as never);
    const { what, rate, signal, work, counted, hasBegun = false } = options;
    checkRate(rate);
    this.#what = what;
    this.#counted = counted;
    this.#control = new JobControl(signal, {
      paused: (error) => {
        this.#publish('paused', error);
        this.#tell('paused', error);
      },
      ready: () => {
        this.#publish('ready');
        this.#tell('ready');
      },
      staged: (stage) => {
        this.#publish(stage ?? 'resumed');
        this.#tell(stage ?? 'resumed');
      },
    });
    this.#control.setRate(rate);
    // What extends it is not made yet.
    queueMicrotask(() => this.#publishBegun());
    this.#ended = this.#run(work, hasBegun);
    this.#report = this.#ended.then((report) => report);
    this.#ended.then(
      (report) => this.#tellEnd(() => this.#tell('done', report)),
      (error) => this.#tellEnd(() => this.#tellFailure(error)),
    );
  }

  /** The report, or why the job has failed. */
  // biome-ignore lint/suspicious/noThenProperty: a job stands for its report, so that it can be awaited.
  then<Done = Report, Failed = never>(
    done?: ((report: Report) => Done | PromiseLike<Done>) | null,
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<Done | Failed> {
    return this.#await().then(done, failed);
  }

  /** Handles the failure, as of any promise. */
  catch<Failed = never>(
    failed?: ((error: unknown) => Failed | PromiseLike<Failed>) | null,
  ): Promise<Report | Failed> {
    return this.#await().catch(failed);
  }

  /** Calls `settled` when the job has ended, well or not. */
  finally(settled?: (() => void) | null): Promise<Report> {
    return this.#await().finally(settled);
  }

  /**
   * Says that somebody keeps the job in a list and looks at its state: a failure that nobody awaits is told there, and no
   * unhandled rejection.
   */
  register(): this {
    this.#await().catch(() => {});
    return this;
  }

  /** Running, paused, or how it has ended. */
  get state(): JobState {
    if (this.#end !== undefined) return this.#end.state;
    return this.#control.isPaused ? 'paused' : (this.#control.stage ?? 'running');
  }

  /** Whether a job that does not end by itself has come so far that it may be told to. */
  get isReady(): boolean {
    return this.#control.isReady;
  }

  /**
   * Begins nothing more that moves bytes until {@link resume}; what is in flight is finished. Pausing what is paused, or
   * has ended, does nothing.
   */
  pause(): void {
    if (this.state !== 'running') return;
    this.#control.pause();
    this.#publish('paused');
    this.#events.emit('paused');
  }

  /** Goes on, also where a failure waits for a human: then what failed is tried again. */
  resume(): void {
    if (this.state !== 'paused') return;
    this.#control.resume();
    this.#publish('resumed');
    this.#events.emit('resumed');
  }

  /**
   * Bytes per second from now on; undefined for as fast as it goes. See {@link JobOptions} for what counts; work that
   * moves no bytes keeps to every rate.
   *
   * @throws RangeError when it is not 1 or more.
   */
  setRate(bytesPerSecond: number | undefined): void {
    checkRate(bytesPerSecond);
    this.#control.setRate(bytesPerSecond);
  }

  /**
   * Ends the job early: requests in flight are finished, and what was written is made durable. The job rejects with
   * ERR_JOB_STOPPED. To end it at once, fire the signal. A job that is done meanwhile is done.
   */
  stop(): void {
    this.#control.stop();
  }

  /**
   * Calls `listener` whenever `event` happens. What a listener throws is an exception that nobody caught, as of any
   * emitter: it does not become the job's failure. Where the process outlives it, the job goes on.
   *
   * @throws TypeError for an unknown event.
   */
  on<Name extends keyof JobEvents<Report, Progress>>(
    event: Name,
    listener: (...args: JobEvents<Report, Progress>[Name]) => void,
  ): this {
    checkKnown(this.#what, 'event', event, EVENTS);
    this.#events.on(event, listener as never);
    if (event === 'progress' && this.#end === undefined) this.#tick();
    return this;
  }

  /** Calls `listener` no more. */
  off<Name extends keyof JobEvents<Report, Progress>>(
    event: Name,
    listener: (...args: JobEvents<Report, Progress>[Name]) => void,
  ): this {
    checkKnown(this.#what, 'event', event, EVENTS);
    this.#events.off(event, listener as never);
    return this;
  }

  /** How far the job is now. */
  progress(): Progress {
    // What a part of it has measured holds for the part.
    const { remainingMs: _, error: __, ...counted } = this.#counted() as unknown as JobProgress;
    const { totalBytes, doneBytes } = counted;
    const elapsedMs = this.#end?.elapsedMs ?? this.#elapsed();
    const bytesPerSecond = this.#rates.now(doneHere(counted), elapsedMs);
    const leftMs = ((totalBytes - doneBytes) / bytesPerSecond) * 1000;
    const endsEarly = this.state === 'failed' || this.state === 'stopped';
    const error = this.#end?.error ?? this.#control.error;
    return {
      ...counted,
      state: this.state,
      bytesPerSecond,
      ...(totalBytes > 0 && bytesPerSecond > 0 && !endsEarly && { remainingMs: leftMs }),
      elapsedMs,
      ...(error && { error }),
    } as unknown as Progress;
  }

  /** A moment of progress about ten times a second, a last one at the end, then the failure, if any. */
  async *[Symbol.asyncIterator](): AsyncIterator<Progress> {
    // The loop is told at its end; what fails before that must not count as unhandled meanwhile.
    this.#report.catch(() => {});
    this.#loops++;
    let isTold = false;
    try {
      yield* this.#moments();
      isTold = true;
      await this.#ended;
    } finally {
      if (!isTold) this.#leaveUntold();
    }
  }

  async *#moments(): AsyncGenerator<Progress> {
    const ended = new AbortController();
    const end = () => ended.abort();
    this.#ended.then(end, end);
    while (!ended.signal.aborted) {
      yield this.progress();
      await sleep(PROGRESS_MS, undefined, { signal: ended.signal }).catch(() => {});
    }
    yield this.progress();
  }

  async #run(work: (control: JobControl) => Promise<Report>, hasBegun: boolean): Promise<Report> {
    const control = this.#control;
    const sample = () => {
      const counted = this.#counted() as unknown as JobProgress;
      this.#rates.sample(doneHere(counted), this.#elapsed());
    };
    const sampler = setInterval(sample, SAMPLE_MS);
    sampler.unref();
    try {
      if (!hasBegun) throwIfAborted(control.signal);
      const report = await work(control);
      this.#end = { state: 'done', elapsedMs: this.#elapsed() };
      return report;
    } catch (thrown) {
      const error = control.outcomeOf(thrown);
      const isEarly = control.ending.aborted && (isAborted(error) || isStopped(error));
      this.#end = {
        state: isEarly ? 'stopped' : 'failed',
        elapsedMs: this.#elapsed(),
        error: error instanceof Error ? error : new Error(String(error)),
      };
      throw error;
    } finally {
      clearInterval(sampler);
      control.close();
    }
  }

  #elapsed(): number {
    return performance.now() - this.#started;
  }

  #await(): Promise<Report> {
    this.#isAwaited = true;
    return this.#report;
  }

  /** A loop was left early: the failure is nobody's again, unless somebody else hears of it by the time it happens. */
  #leaveUntold(): void {
    this.#loops--;
    void this.#ended.catch(async (error) => {
      // Who leaves the loop of a job that has failed already may be about to await it.
      await turn();
      const isHeard = this.#isAwaited || this.#loops > 0;
      if (!isHeard && this.#events.listenerCount('failed') === 0) throw error;
    });
  }

  #tick(): void {
    this.#ticker ??= setInterval(() => this.#tell('progress', this.progress()), PROGRESS_MS);
  }

  /** Tells the last moment of progress, then how the job has ended. */
  #tellEnd(tell: () => void): void {
    clearInterval(this.#ticker);
    const { state, error } = this.#end!;
    this.#publish(state as JobChange, error);
    this.#tell('progress', this.progress());
    tell();
  }

  #tellFailure(error: unknown): void {
    if (this.#events.listenerCount('failed') === 0) return;
    this.#report.catch(() => {});
    this.#tell('failed', error);
  }

  #publishBegun(): void {
    if (this.#isBegun) return;
    this.#isBegun = true;
    this.#publish('begun');
  }

  #publish(event: JobChange, error?: unknown): void {
    // Its caller may steer it before anything else has run.
    this.#publishBegun();
    tellJob({ job: this, what: this.#what, event, ...(error !== undefined && { error }) });
  }

  /** Tells of what the work did by itself, where no caller could catch what a listener throws. */
  #tell<Name extends keyof JobEvents<Report, Progress>>(
    event: Name,
    ...args: JobEvents<Report, Progress>[Name]
  ): void {
    try {
      this.#events.emit(event, ...args);
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }
}

/** Bytes that this run has done. */
function doneHere({
  doneBytes,
  resumedBytes = 0,
}: Pick<JobProgress, 'doneBytes' | 'resumedBytes'>): number {
  return doneBytes - resumedBytes;
}
