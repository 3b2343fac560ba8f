/** Starts the worker threads of a copy or a comparison, watches over them, and takes them down again. */
import { once } from 'node:events';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { abortedError, fromWire, LacunaError } from '../../errors/index.js';
import { afterWaiting, guardKoffi, ownFile } from '../../util/index.js';
import type { Control } from '../control/index.js';
import type { BlockDigests, LeftOut, MoveOutcome } from '../move/index.js';
import { withoutSide, withSide } from '../options/index.js';
import { addBatch, type DigestBatch } from './digest-sender.js';
import type {
  SharedEnds,
  SharedMemory,
  ShareOfWork,
  WorkerResult,
  WorkerSignal,
  WorkerTask,
} from './worker.js';

/** After a failure the other workers may finish what they have in flight, and flush it, for so long. */
const FINISH_GRACE_MS = 3000;

/** A worker that does not stop by itself within this time is ended from outside. */
const STOP_GRACE_MS = 3000;

export interface CrewOptions {
  threads: number;
  ends: SharedEnds;
  /** What they do with their share. */
  task: ShareOfWork;
  memory: SharedMemory;
  control: Control;
  results?: CrewResults;
  signal: AbortSignal;
}

/** Who takes what the workers find. */
export interface CrewResults {
  /** Takes what they have left out. */
  leftOut?: LeftOut;
  /** Takes the digests of all blocks that are moved. */
  digest?: BlockDigests | undefined;
  /** Told when a thread ends without giving back what it holds: the shared memory is not sound any more. */
  lost?(): void;
}

export interface CrewOutcome extends MoveOutcome {
  warnings: string[];
}

/**
 * Works through the plan in `threads` workers. A connection that cannot be made costs only speed as long as another
 * worker has one; there is a warning for each. Never throws, as `move`.
 */
export async function workInThreads(options: CrewOptions): Promise<CrewOutcome> {
  const crew = new Crew(options);
  const stop = () => crew.stop();
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    if (options.signal.aborted) stop();
    return crew.judge(await crew.run());
  } finally {
    options.signal.removeEventListener('abort', stop);
    await crew.end();
  }
}

interface Outcome {
  /** Whether the worker had both its devices open. */
  opened: boolean;
  flushed: boolean;
  error?: unknown;
}

class Crew {
  readonly #options: CrewOptions;
  readonly #pool: Piscina;
  readonly #ports: MessagePort[] = [];
  #firstFailure: unknown;
  /** That a thread has ended without giving back what it held. */
  #lost: LacunaError | undefined;
  /** Ends the waiting for workers that were told to stop. */
  #grace: (() => void) | undefined;

  constructor(options: CrewOptions) {
    this.#options = options;
    guardKoffi();
    this.#pool = new Piscina({
      filename: ownFile('copy/threads/worker.js').href,
      minThreads: options.threads,
      maxThreads: options.threads,
      atomics: 'disabled',
    });
    // A thread that dies also fails its task, which says more than this event does.
    this.#pool.on('error', () => {});
  }

  run(): Promise<Outcome[]> {
    const runs: Promise<Outcome>[] = [];
    for (let thread = 0; thread < this.#options.threads; thread++) {
      runs.push(this.#watch(this.#work(thread)));
    }
    return Promise.all(runs);
  }

  /** Asks every worker to stop, and ends those that do not. */
  stop(): void {
    this.#grace?.();
    this.#options.control.stop();
    this.#tell('stop');
    this.#grace = afterWaiting(STOP_GRACE_MS, () => this.#kill());
  }

  /** Lets every worker finish what it has in flight, for a while. */
  #finish(): void {
    this.#options.control.stop();
    this.#grace ??= afterWaiting(FINISH_GRACE_MS, () => this.stop());
  }

  #kill(): void {
    this.#options.results?.lost?.();
    void this.#pool.destroy();
  }

  async end(): Promise<void> {
    this.#grace?.();
    for (const port of this.#ports) port.close();
    await this.#pool.destroy();
  }

  /** How it went, all in all: the first failure, or which connections were missing. */
  judge(outcomes: readonly Outcome[]): CrewOutcome {
    const { signal } = this.#options;
    const flushed = outcomes.every((outcome) => outcome.flushed);
    const missing = outcomes.flatMap(({ opened, error }) => (!opened && error ? [error] : []));
    const none = missing.length > 0 && missing.length === outcomes.length;
    const failure = this.#firstFailure ?? (none ? missing[0] : undefined);
    // Without its side no policy has a say: nobody may go on in memory that may be locked for ever.
    const error = this.#lost ? withoutSide(failure) : failure;
    const warnings = missing.map(
      (lost) => `One connection less was used: ${(lost as Error).message}`,
    );
    return { error: signal.aborted ? abortedError(signal) : error, flushed, warnings };
  }

  async #watch(run: Promise<Outcome>): Promise<Outcome> {
    const outcome = await run;
    if (isFatal(outcome)) {
      this.#firstFailure ??= outcome.error;
      this.#finish();
    } else if (outcome.opened) {
      // It found nothing left to claim, so whoever is still connecting is not needed.
      this.#tell('drained');
    }
    return outcome;
  }

  async #work(thread: number): Promise<Outcome> {
    const {
      memory,
      ends,
      task: share,
      threads,
      results: { leftOut, digest, lost } = {},
    } = this.#options;
    const { port1, port2 } = new MessageChannel();
    port1.unref();
    this.#ports.push(port1);
    const ended = once(port1, 'close');
    if (digest) port1.on('message', (batch: DigestBatch) => addBatch(digest, batch));
    // The first row is the calling thread's.
    const row = thread + 1;
    const sends = { digest: digest !== undefined, port: port2 };
    const task: WorkerTask = { ...share, memory, ends, row, ...sends };
    try {
      const result: WorkerResult = await this.#pool.run(task, { transferList: [port2] });
      // The result takes another way than the digests; the port is closed behind the last of them.
      if (digest) await ended;
      leftOut?.merge(result.leftOut.ranges, result.leftOut.more);
      return { opened: result.opened, flushed: result.flushed, error: errorOf(result) };
    } catch (cause) {
      lost?.();
      const message = `Worker thread ${thread + 1} of ${threads} ended before its work was done; try again`;
      this.#lost = new LacunaError('ERR_WORKER_LOST', message, { cause });
      return { opened: true, flushed: false, error: this.#lost };
    }
  }

  #tell(word: WorkerSignal): void {
    for (const port of this.#ports) port.postMessage(word);
  }
}

/** A failure that ends the copy, as opposed to a connection that was one too many. */
function isFatal({ opened, error }: Outcome): boolean {
  return error !== undefined && (opened || !isConnectFailure(error));
}

function errorOf({ error, side }: WorkerResult): unknown {
  const revived = error && fromWire(error);
  return side === undefined ? revived : withSide(side, revived);
}

function isConnectFailure(failure: unknown): boolean {
  const error = withoutSide(failure);
  if (!(error instanceof LacunaError)) return false;
  return error.code === 'ERR_TIMEOUT' || error.code === 'ERR_NBD_DISCONNECTED';
}
