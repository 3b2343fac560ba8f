import { parentPort, workerData } from 'node:worker_threads';
import { Arena } from 'lacuna/bitmap';

// Attaching takes the lock too, so it comes before the signal to begin.
const arena = Arena.attach(workerData);
parentPort.once('message', () => {
  try {
    arena.allocate(512).free();
    parentPort.postMessage('has it');
  } catch (error) {
    parentPort.postMessage(error.name);
  }
});
parentPort.postMessage('attached');
