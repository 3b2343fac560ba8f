/** Compresses with zstd in worker threads, for a Node whose own thread pool cannot. */
import { availableParallelism } from 'node:os';
import type { Piscina } from 'piscina';
import type { ZstdTask } from './zstd-worker.js';

/** Threads that have nothing to compress end after this time. */
const IDLE_MS = 2000;

let pool: Promise<Piscina<ZstdTask, Uint8Array>> | undefined;

/** Compresses bytes, which the caller may change again at once, into one frame of zstd. */
export async function zstdInThreads(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  // A copy that owns all of its memory, which the slice of a Buffer does not.
  const task = { bytes: new Uint8Array(bytes), level };
  pool ??= start();
  return await (await pool).run(task, { transferList: [task.bytes.buffer] });
}

/** One pool for all that is compressed in this thread. */
async function start(): Promise<Piscina<ZstdTask, Uint8Array>> {
  const { Piscina } = await import('piscina');
  const threads = new Piscina<ZstdTask, Uint8Array>({
    filename: import.meta.resolve('#dist/wasm/zstd-worker.js'),
    minThreads: 0,
    maxThreads: availableParallelism(),
    idleTimeout: IDLE_MS,
  });
  // A thread that dies also fails its task, which says more than this event does.
  threads.on('error', () => {});
  return threads;
}
