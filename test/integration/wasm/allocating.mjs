import { parentPort, workerData } from 'node:worker_threads';
import { Arena } from 'lacuna/bitmap';

// Allocates and frees beside other threads; whoever is given a block of somebody else sees a strange mark.
const arena = Arena.attach(workerData.shared);
const held = [];
let answer = 'intact';
for (let step = 0; step < 30_000; step++) {
  if (held.length > 50 || (held.length > 0 && step % 3 === 2)) {
    const block = held.splice((step * 7) % held.length, 1)[0];
    if (!block.bytes.every((byte) => byte === workerData.mark)) answer = `damaged at ${step}`;
    block.free();
  } else {
    const block = arena.allocate(((step * 37) % 3000) + 1);
    block.bytes.fill(workerData.mark);
    held.push(block);
  }
}
for (const block of held) block.free();

// Far behind what was used before: every thread must reach all of the arena at once.
const large = arena.allocate(48 * 2 ** 20);
large.bytes.fill(workerData.mark);
if (!large.bytes.every((byte) => byte === workerData.mark)) answer = 'damaged far behind';
large.free();
arena.detach();
parentPort.postMessage(answer);
