import { workerData } from 'node:worker_threads';
import { Arena } from 'lacuna/bitmap';

// All threads take what the workers of a copy take, then give it back at the same moment.
const { shared, turns, threads, rounds } = workerData;
const arena = Arena.attach(shared);
for (let round = 1; round <= rounds; round++) {
  const blocks = Array.from({ length: 16 }, () => arena.allocate(262_144));
  Atomics.add(turns, 0, 1);
  while (Atomics.load(turns, 0) < round * threads);
  for (const block of blocks) block.free();
}
arena.detach();
