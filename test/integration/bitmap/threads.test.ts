import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { Arena, Bitmap, type BitmapHandle } from 'lacuna/bitmap';
import { describe, it } from 'vitest';

const GRANULARITY = 65536;
const GRANULES = 200_000;
const SIZE = GRANULES * GRANULARITY;

interface Task {
  role: 'claim' | 'set' | 'churn';
  handle: BitmapHandle;
  rounds?: number;
  seed?: number;
}

/** Starts a thread on a bitmap of this one; resolves with how often it claimed each granule. */
function start(arena: Arena, task: Task): Promise<Uint32Array> {
  const worker = new Worker(new URL('working.mjs', import.meta.url), {
    workerData: { ...task, shared: arena.shared, granules: GRANULES, granularity: GRANULARITY },
  });
  return new Promise((resolve, reject) => {
    worker.on('message', resolve).on('error', reject);
  });
}

function sum(claims: Uint32Array[]): Uint32Array {
  const total = new Uint32Array(GRANULES);
  for (const claim of claims) {
    for (let granule = 0; granule < GRANULES; granule++) total[granule] += claim[granule];
  }
  return total;
}

describe.each(['simd', 'scalar'] as const)('many threads on one bitmap, %s kernels', (variant) => {
  it('claim every dirty granule exactly once', async () => {
    const arena = Arena.create({ variant });
    const bitmap = new Bitmap({ size: SIZE, granularity: GRANULARITY, arena });
    for (let i = 0; i < GRANULES; i++) {
      if (i % 3 !== 0 || i < GRANULES / 2) bitmap.set(i * GRANULARITY, 1);
    }
    const expected = Uint32Array.from({ length: GRANULES }, (_, i) =>
      Number(bitmap.get(i * GRANULARITY)),
    );
    const { handle } = bitmap;
    const claims = await Promise.all(
      Array.from({ length: 4 }, () => start(arena, { role: 'claim', handle })),
    );
    assert.equal(bitmap.count, 0);
    assert.deepEqual(sum(claims), expected);
  });

  it('lose no set and claim nothing twice while another thread sets', async () => {
    const arena = Arena.create({ variant });
    const bitmap = new Bitmap({ size: SIZE, granularity: GRANULARITY, arena });
    const { handle } = bitmap;
    const claims = await Promise.all([
      start(arena, { role: 'set', handle }),
      ...Array.from({ length: 4 }, () => start(arena, { role: 'claim', handle, rounds: GRANULES })),
    ]);
    const left = new Uint32Array(GRANULES);
    for (const { offset, length } of bitmap.ranges()) {
      left.fill(1, offset / GRANULARITY, (offset + length) / GRANULARITY);
    }
    assert.deepEqual(sum([...claims.slice(1), left]), new Uint32Array(GRANULES).fill(1));
  });

  it('share nodes between bitmaps without ever writing into each other', async () => {
    const arena = Arena.create({ variant });
    const idle = arena.usedBytes;
    const origin = new Bitmap({ size: SIZE, granularity: GRANULARITY, arena });
    for (let i = 0; i < GRANULES; i += 5) origin.set(i * GRANULARITY, 1);
    const digest = origin.digest();
    const { handle } = origin;
    await Promise.all(
      Array.from({ length: 3 }, (_, seed) => start(arena, { role: 'churn', handle, seed })),
    );
    assert.equal(origin.digest(), digest);
    origin.free();
    assert.equal(arena.usedBytes, idle);
  });
});
