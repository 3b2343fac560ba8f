import { abortedError, isAborted } from '../errors/index.js';
import { LONGEST_TIMER_MS, onAbort, Turns } from '../util/index.js';
import { ByteClock } from './byte-clock.js';
import { isStopped, stoppedError } from './stopped.js';

/** A part of a job that is steered with it: another job, or what threads share. */
export interface Steered {
  /** Begins nothing more until `resume`. */
  pause(): void;
  /** Goes on. */
  resume(): void;
  /** Bytes per second from now on; undefined for as fast as it goes. */
  setRate(bytesPerSecond: number | undefined): void;
  /** Finishes what is in flight, and begins nothing more. */
  stop(): void;
}

/** A job as a part of another one. */
export interface PartJob<Report> extends Steered, PromiseLike<Report> {
  /** Tells when it is paused; with an error, where it waits for a human. */
  on(event: 'paused', listener: (error?: Error) => void): unknown;
}

/** Why work that is done has not ended: it waits for the work of others, or to be told to. */
export type EndStage = 'waiting' | 'pending';

/** Told of what the work itself does to the state of its job. */
export interface WorkListener {
  /** A failure waits for a human. */
  paused(error: Error): void;
  /** The job waits to be told to end. */
  ready(): void;
  /** The work waits for its end, or no more: it goes on. */
  staged(stage: EndStage | undefined): void;
}

/** How the work of a job is told to pause, to keep to a rate, and to end. */
export class JobControl {
  /** Fires when the work is to end at once. */
  readonly signal: AbortSignal;
  /** Fires with `signal`, and when the job is asked to stop: ends what need not be finished, such as waits and questions. */
  readonly ending: AbortSignal;
  readonly #ending = new AbortController();
  readonly #listener: WorkListener;
  readonly #parts = new Set<Steered>();
  readonly #clock = new ByteClock(performance.now());
  readonly #turns = new Turns();
  readonly #waiting = new Set<() => void>();
  #rate: number | undefined;
  /** A limit that parts may have been begun with was taken away. */
  #isUnlimited = false;
  #isPaused = false;
  #isOver = false;
  #isReady = false;
  #stage: EndStage | undefined;
  #error: Error | undefined;

  /** @internal A {@link Job} makes it. */
  constructor(signal: AbortSignal | undefined, listener: WorkListener) {
    this.signal = signal ?? new AbortController().signal;
    this.#listener = listener;
    this.ending = this.#ending.signal;
    onAbort(this.ending, this.#end);
    if (this.signal.aborted) this.#aborted();
    // Not AbortSignal.any: a signal may outlive many jobs, and would remember each of them.
    else onAbort(this.signal, this.#aborted);
  }

  /** Whether nothing is to be begun now. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Whether the work is ready to end, and goes on until it is told to. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** What its end waits for, if that is all that is missing. */
  get stage(): EndStage | undefined {
    return this.#stage;
  }

  /** What the job waits for a human about, if anything. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Bytes of the longest piece that keeps to the rate; Infinity where there is no limit. */
  get pieceSize(): number {
    return this.#clock.pieceSize;
  }

  /**
   * To be awaited before each piece of work: waits while the job is paused, and until its rate allows so many bytes. Lets
   * the event loop run now and then, so that a pause is heard between pieces that are done at once.
   *
   * @throws LacunaError ERR_JOB_STOPPED or ERR_ABORTED once the job is to end.
   */
  async next(bytes = 0): Promise<void> {
    await this.#turns.next();
    const ticket = this.#clock.draw(bytes, performance.now());
    for (;;) {
      this.throwIfEnding();
      if (this.#isOver) throw abortedError();
      const leftMs = this.#clock.wait(ticket, performance.now());
      if (this.#isPaused) await this.#change();
      else if (leftMs > 0) await this.#change(leftMs);
      else return;
    }
  }

  /**
   * For work that cannot wait where it is.
   *
   * @throws LacunaError ERR_JOB_STOPPED or ERR_ABORTED once the job is to end.
   */
  throwIfEnding(): void {
    if (this.signal.aborted) throw abortedError(this.signal);
    if (this.ending.aborted) throw stoppedError(this.#error);
  }

  /**
   * Pauses the job because of a failure that waits for a human. Resolves when the job is resumed, and the work is to be
   * tried again.
   *
   * @throws LacunaError ERR_JOB_STOPPED, with the failure as its cause, or ERR_ABORTED once the job is to end.
   */
  async waitAbout(error: Error): Promise<void> {
    if (this.ending.aborted && !this.signal.aborted) throw stoppedError(error);
    this.#pauseAbout(error);
    await this.next();
  }

  /** Says that the work is ready to end; from then on it waits to be told to. */
  becomeReady(): void {
    if (this.#isReady) return;
    this.#isReady = true;
    this.#listener.ready();
  }

  /** Says what its end waits for; undefined where the work goes on. */
  setStage(stage: EndStage | undefined): void {
    if (this.#stage === stage || this.#isOver) return;
    this.#stage = stage;
    this.#listener.staged(stage);
  }

  /**
   * Steers a part with the job from now on. Where there are several at a time, they get equal shares of the rate.
   *
   * @returns lets go of it
   */
  steer(part: Steered): () => void {
    this.#parts.add(part);
    if (this.#isPaused) part.pause();
    // One that nobody has limited keeps the rate that it was begun with.
    if (this.#rate !== undefined || this.#isUnlimited) this.#shareRate();
    if (this.ending.aborted) part.stop();
    return () => {
      if (this.#parts.delete(part) && this.#rate !== undefined) this.#shareRate();
    };
  }

  /**
   * Lets another job do a part of the work: it is steered with this one, which pauses where it waits for a human.
   *
   * @throws what the other job fails with
   */
  async run<Report>(job: PartJob<Report>): Promise<Report> {
    const letGo = this.steer(job);
    job.on('paused', (error) => {
      if (error !== undefined) this.#pauseAbout(error);
    });
    try {
      return await job;
    } finally {
      letGo();
    }
  }

  /** @internal */
  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#clock.run(false, performance.now());
    for (const part of this.#parts) part.pause();
  }

  /** @internal */
  resume(): void {
    this.#isPaused = false;
    this.#error = undefined;
    this.#clock.run(true, performance.now());
    for (const part of this.#parts) part.resume();
    this.#ring();
  }

  /** @internal */
  setRate(bytesPerSecond: number | undefined): void {
    if (bytesPerSecond === undefined && this.#rate !== undefined) this.#isUnlimited = true;
    this.#rate = bytesPerSecond;
    this.#clock.setRate(bytesPerSecond, performance.now());
    this.#shareRate();
    this.#ring();
  }

  /** @internal */
  stop(): void {
    this.#ending.abort();
  }

  /** @internal The work has ended: what still waits for its turn fails. */
  close(): void {
    this.#isOver = true;
    this.signal.removeEventListener('abort', this.#aborted);
    this.ending.removeEventListener('abort', this.#end);
    this.#ring();
  }

  /** @internal What a failure of the work means for its caller: who asked for the end is told of that. */
  outcomeOf(error: unknown): unknown {
    if (this.signal.aborted) return isStopped(error) ? abortedError(this.signal) : error;
    return isAborted(error) && this.ending.aborted ? stoppedError(this.#error) : error;
  }

  readonly #aborted = (): void => this.#ending.abort(this.signal.reason);

  readonly #end = (): void => {
    for (const part of this.#parts) part.stop();
    this.#ring();
  };

  #pauseAbout(error: Error): void {
    if (this.ending.aborted || this.#isOver) return;
    this.pause();
    this.#error = error;
    this.#listener.paused(error);
  }

  #shareRate(): void {
    const share = this.#rate && Math.max(1, this.#rate / this.#parts.size);
    for (const part of this.#parts) part.setRate(share);
  }

  /** Resolves when somebody steers the job, or the time is over. A job that waits keeps the process alive. */
  #change(ms = LONGEST_TIMER_MS): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.min(ms, LONGEST_TIMER_MS));
      this.#waiting.add(wake);
    });
  }

  #ring(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}
