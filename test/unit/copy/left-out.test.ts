import { describe, expect, it } from 'vitest';
import { LeftOut } from '#dist/copy/move/left-out.js';
import { LacunaError } from '#dist/errors/index.js';
import fc from '../../support/fast-check.js';

const error = new LacunaError('ERR_DEVICE_IO', 'bad sector', { errno: 'EIO' });

describe('the ranges that were left out', () => {
  it('are in order, do not touch, and cover exactly what was added', () => {
    const block = fc.record({
      side: fc.constantFrom('source' as const, 'target' as const),
      at: fc.integer({ min: 0, max: 60 }),
      count: fc.integer({ min: 1, max: 12 }),
    });
    fc.assert(
      fc.property(fc.array(block, { maxLength: 40 }), (blocks) => {
        const leftOut = new LeftOut();
        const want = { source: new Set<number>(), target: new Set<number>() };
        for (const { side, at, count } of blocks) {
          leftOut.add(side, at, count, error);
          for (let i = 0; i < count; i++) want[side].add(at + i);
        }
        const got = { source: new Set<number>(), target: new Set<number>() };
        let before = { side: '', end: -1 };
        for (const { side, offset, length } of leftOut.ranges) {
          if (side === before.side) expect(offset).toBeGreaterThan(before.end);
          else expect(side > before.side).toBe(true);
          before = { side, end: offset + length };
          for (let i = 0; i < length; i++) got[side].add(offset + i);
        }
        expect(got).toEqual(want);
      }),
    );
  });

  it('keep the first failure of each range, as plain data', () => {
    const leftOut = new LeftOut();
    const later = new LacunaError('ERR_NBD_REMOTE', 'later');
    leftOut.add('source', 4096, 4096, error);
    leftOut.add('source', 0, 4096, later);
    leftOut.add('source', 8192, 4096, later);
    expect(leftOut.ranges).toEqual([
      {
        side: 'source',
        offset: 0,
        length: 12288,
        error: { code: 'ERR_DEVICE_IO', message: 'bad sector', errno: 'EIO' },
      },
    ]);
  });

  it('are bounded: what does not fit is counted', () => {
    const leftOut = new LeftOut();
    for (let i = 0; i < 1500; i++) leftOut.add('target', i * 8192, 4096, error);
    expect([leftOut.ranges.length, leftOut.more]).toEqual([1000, 500]);
    const all = new LeftOut();
    all.merge(leftOut.ranges, leftOut.more);
    all.merge([], 7);
    expect([all.ranges.length, all.more]).toEqual([1000, 507]);
  });
});
