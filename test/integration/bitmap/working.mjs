import { parentPort, workerData } from 'node:worker_threads';
import { Arena, Bitmap } from 'lacuna/bitmap';

const { role, shared, handle, granules, granularity, rounds = 0, seed = 0 } = workerData;
const arena = Arena.attach(shared);
const bitmap = Bitmap.attach(arena, handle);
const claimed = new Uint32Array(granules);

/** Claims until nothing is left, and then goes on looking for as long as something may still come. */
function claim() {
  const out = new Float64Array(16);
  for (let idle = 0; idle <= rounds; ) {
    const count = bitmap.claim(out, { maxBytes: 37 * granularity });
    idle = count === 0 ? idle + 1 : 0;
    for (let i = 0; i < count * 2; i += 2) {
      const first = out[i] / granularity;
      for (let k = first; k < first + out[i + 1] / granularity; k++) claimed[k]++;
    }
  }
}

/** Sets every granule once; a stride that shares no factor with their number reaches them all. */
function set() {
  for (let i = 0, at = 0; i < granules; i++, at = (at + 7919) % granules) {
    bitmap.set(at * granularity, 1);
  }
}

/** Takes snapshots and changes them, which copies nodes that other threads copy and free as well. */
function churn() {
  let state = seed + 1;
  for (let i = 0; i < 300; i++) {
    const copy = bitmap.snapshot();
    for (let k = 0; k < 50; k++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      const at = (state % granules) * granularity;
      if (k % 2 === 0) copy.set(at, 1);
      else copy.reset(at, Math.min(granularity * 9000, copy.size - at));
    }
    if (i % 3 === 0) copy.merge(bitmap);
    copy.free();
  }
}

({ claim, set, churn })[role]();
bitmap.free();
arena.detach();
parentPort.postMessage(claimed);
