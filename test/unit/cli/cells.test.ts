import { describe, expect, test } from 'vitest';
import { Cells } from '#dist/cli/text/cells.js';
import fc from '../../support/fast-check.js';

describe('cells', () => {
  test('share a range out at their cuts, to the byte', () => {
    const cells = new Cells({ size: 10, count: 3, kinds: 2 });
    cells.add(0, 5, 0);
    cells.add(5, 5, 1);
    expect([0, 1, 2].map((cell) => cells.sizeOf(cell))).toEqual([3, 3, 4]);
    expect([0, 1, 2].map((cell) => cells.bytesAt(cell, 0))).toEqual([3, 2, 0]);
    expect([0, 1, 2].map((cell) => cells.bytesAt(cell, 1))).toEqual([0, 1, 4]);
  });

  test('are never more than there are bytes', () => {
    expect(new Cells({ size: 3, count: 80, kinds: 1 }).count).toBe(3);
    expect(new Cells({ size: 0, count: 80, kinds: 1 }).count).toBe(0);
  });

  test('add up exactly on disks of any size', () => {
    const sizes = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 20 });
    const property = fc.property(
      sizes,
      fc.integer({ min: 1, max: 300 }),
      cuts,
      (size, count, at) => {
        const cells = new Cells({ size, count, kinds: 3 });
        const ends = [...at.map((share) => Math.floor(share * size)), size].sort((a, b) => a - b);
        let offset = 0;
        ends.forEach((end, i) => {
          if (end > offset) cells.add(offset, end - offset, i % 3);
          offset = end;
        });
        expect([0, 1, 2].reduce((sum, kind) => sum + cells.totalOf(kind), 0)).toBe(size);
        for (let cell = 0; cell < cells.count; cell++) {
          const held = [0, 1, 2].reduce((sum, kind) => sum + cells.bytesAt(cell, kind), 0);
          expect(held).toBe(cells.sizeOf(cell));
        }
      },
    );
    fc.assert(property);
  });
});
