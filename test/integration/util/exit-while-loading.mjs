/** Ends the process while many threads are loading koffi. */
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { guardKoffi, loadKoffi } from '../../../dist/util/index.js';

if (isMainThread) {
  guardKoffi();
  const begun = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 0; i < 12; i++) new Worker(new URL(import.meta.url), { workerData: begun });
  while (Atomics.load(begun, 0) < 6) Atomics.wait(begun, 0, Atomics.load(begun, 0));
  process.exit(7);
}
Atomics.add(workerData, 0, 1);
Atomics.notify(workerData, 0);
loadKoffi();
