/** Ends the process when a thread that had begun to load koffi was terminated. */
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { guardKoffi } from '../../../dist/util/index.js';
import { beginLoading } from '../../../dist/util/koffi-guard.js';

if (isMainThread) {
  guardKoffi();
  const worker = new Worker(new URL(import.meta.url));
  worker.once('message', async () => {
    await worker.terminate();
    process.exit(7);
  });
} else {
  beginLoading();
  parentPort.postMessage('loading');
  // What is terminated runs no `finally`.
  for (;;);
}
