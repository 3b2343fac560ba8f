import assert from 'node:assert/strict';
import { Arena, Bitmap } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { bitmapContract } from '#dist/testing/bitmap-contract.js';

for (const variant of ['simd', 'scalar'] as const) {
  const arena = Arena.create({ variant, maximumBytes: 2 ** 24 });
  const idle = arena.usedBytes;
  describe(`the bitmap contract, with ${variant} kernels`, () => {
    const cases = bitmapContract({ create: (options) => new Bitmap({ ...options, arena }) });
    for (const { name, run } of cases) it(name, run);

    it('bitmaps that were freed leave nothing in the arena', () => {
      assert.equal(arena.usedBytes, idle);
    });
  });
}
