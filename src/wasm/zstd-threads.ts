/** Compresses with zstd in worker threads, for a Node whose own thread pool cannot. */
import { availableParallelism } from 'node:os';
import type { Piscina } from 'piscina';
import { LacunaError } from '../errors/index.js';
import { ownFile } from '../util/index.js';
import type { ZstdTask } from './zstd-worker.js';

/** Threads that have nothing to compress end after this time. */
const IDLE_MS = 2000;

let pool: Promise<Piscina<ZstdTask, Uint8Array>> | undefined;

/**
 * Compresses bytes, which the caller may change again at once, into one frame of zstd.
 *
 * @throws LacunaError ERR_WORKER_LOST
 */
export async function zstdInThreads(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  // A copy that owns all of its memory, which the slice of a Buffer does not.
  const task = { bytes: new Uint8Array(bytes), level };
  pool ??= start();
  const threads = await pool;
  try {
    return await threads.run(task, { transferList: [task.bytes.buffer] });
  } catch (cause) {
    await giveUp(threads);
    const why = (cause as Error).message;
    const message = `A worker thread could not compress with zstd: ${why}; try again`;
    throw new LacunaError('ERR_WORKER_LOST', message, { cause });
  }
}

/** One pool for all that is compressed in this thread. */
async function start(): Promise<Piscina<ZstdTask, Uint8Array>> {
  const { Piscina } = await import('piscina');
  const threads = new Piscina<ZstdTask, Uint8Array>({
    filename: ownFile('wasm/zstd-worker.js').href,
    minThreads: 0,
    maxThreads: availableParallelism(),
    idleTimeout: IDLE_MS,
  });
  // A thread that ends without a task, as when it cannot be loaded.
  threads.on('error', () => giveUp(threads));
  return threads;
}

/** Fails the tasks that no thread has taken: Piscina starts no other thread for them, and they would wait for ever. */
async function giveUp(threads: Piscina): Promise<void> {
  if ((await pool) === threads) pool = undefined;
  await threads.destroy();
}
