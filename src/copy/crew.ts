/** Starts the worker threads of a copy or a comparison, watches over them, and takes them down again. */
import { once } from 'node:events';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { abortedError, fromWire, LacunaError } from '../errors/index.js';
import type { Control } from './control.js';
import type { DeviceAgain } from './device-again.js';
import { addBatch, type DigestBatch } from './digest-sender.js';
import type { DigestTree } from './digest-tree.js';
import type { Transfer } from './mover.js';
import type { CompareTask, WorkerResult, WorkerSignal, WorkerTask } from './worker.js';

/** A worker that does not stop by itself within this time is ended from outside. */
const STOP_GRACE_MS = 3000;

export interface CrewOptions {
  threads: number;
  source: DeviceAgain;
  target: DeviceAgain;
  /** What they do with their share: move, or compare. */
  transfer?: Transfer;
  compare?: CompareTask;
  control: Control;
  /** The shared part of every worker's task. */
  shared: Pick<WorkerTask, 'arena' | 'plan' | 'remains' | 'control'>;
  /** Told when a thread ends without giving back what it holds: the shared memory is not sound any more. */
  lost?(): void;
  /** Takes the digests of all blocks that are moved. */
  digest?: DigestTree | undefined;
  signal: AbortSignal;
}

/**
 * Works through the plan in `threads` workers. A connection that cannot be made costs only speed as long as another
 * worker has one; returns a warning for each.
 */
export async function workInThreads(options: CrewOptions): Promise<string[]> {
  const crew = new Crew(options);
  const stop = () => crew.stop();
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    if (options.signal.aborted) stop();
    const outcomes = await crew.run();
    if (options.signal.aborted) throw abortedError(options.signal);
    return crew.judge(outcomes);
  } finally {
    options.signal.removeEventListener('abort', stop);
    await crew.end();
  }
}

interface Outcome {
  /** Whether the worker had both its devices open. */
  opened: boolean;
  error?: Error;
}

class Crew {
  readonly #options: CrewOptions;
  readonly #pool: Piscina;
  readonly #ports: MessagePort[] = [];
  #firstFailure: Error | undefined;
  #grace: NodeJS.Timeout | undefined;

  constructor(options: CrewOptions) {
    this.#options = options;
    this.#pool = new Piscina({
      filename: import.meta.resolve('#dist/copy/worker.js'),
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
    this.#options.control.stop();
    this.#tell('stop');
    this.#grace ??= setTimeout(() => this.#kill(), STOP_GRACE_MS);
  }

  #kill(): void {
    this.#options.lost?.();
    void this.#pool.destroy();
  }

  async end(): Promise<void> {
    clearTimeout(this.#grace);
    for (const port of this.#ports) port.close();
    await this.#pool.destroy();
  }

  /** Fails as the first worker did, or says which connections were missing. */
  judge(outcomes: readonly Outcome[]): string[] {
    if (this.#firstFailure) throw this.#firstFailure;
    const missing = outcomes.flatMap(({ error }) => (error ? [error] : []));
    if (missing.length > 0 && missing.length === outcomes.length) throw missing[0];
    return missing.map(({ message }) => `One connection less was used: ${message}`);
  }

  async #watch(run: Promise<Outcome>): Promise<Outcome> {
    const outcome = await run;
    if (isFatal(outcome)) {
      this.#firstFailure ??= outcome.error;
      this.stop();
    } else if (outcome.opened) {
      // It found nothing left to claim, so whoever is still connecting is not needed.
      this.#tell('drained');
    }
    return outcome;
  }

  async #work(thread: number): Promise<Outcome> {
    const { shared, source, target, transfer, compare, threads, digest } = this.#options;
    const { port1, port2 } = new MessageChannel();
    port1.unref();
    this.#ports.push(port1);
    const ended = once(port1, 'close');
    if (digest) port1.on('message', (batch: DigestBatch) => addBatch(digest, batch));
    const side = { thread, source, target, transfer, compare, digest: digest !== undefined };
    const task: WorkerTask = { ...shared, ...side, port: port2 };
    try {
      const result: WorkerResult = await this.#pool.run(task, { transferList: [port2] });
      // The result takes another way than the digests; the port is closed behind the last of them.
      if (digest) await ended;
      return { opened: result.opened, ...(result.error && { error: fromWire(result.error) }) };
    } catch (cause) {
      this.#options.lost?.();
      const message = `Worker thread ${thread + 1} of ${threads} ended before its work was done; try again`;
      return { opened: true, error: new LacunaError('ERR_WORKER_LOST', message, { cause }) };
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

function isConnectFailure(error: Error): boolean {
  if (!(error instanceof LacunaError)) return false;
  return error.code === 'ERR_TIMEOUT' || error.code === 'ERR_NBD_DISCONNECTED';
}
