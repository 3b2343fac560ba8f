import { describe, expect, it } from 'vitest';
import {
  blockCluster,
  newLayout,
  planArea,
  planTableGrowth,
  RefcountCodec,
} from '#dist/qcow2/index.js';
import fc from '../../support/fast-check.js';

const ORDERS = [0, 1, 2, 3, 4, 5, 6];

describe('refcounts', () => {
  it.each(ORDERS)('of 2^%d bits are what was set, and so are their neighbours', (order) => {
    const codec = new RefcountCodec(order);
    const entries = codec.entriesIn(64);
    const value = fc.maxSafeNat().map((number) => number % (codec.maximum + 1));
    const change = fc.tuple(fc.nat(entries - 1), value);
    fc.assert(
      fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
        const block = new Uint8Array(64);
        const model = new Array<number>(entries).fill(0);
        for (const [index, count] of changes) {
          codec.set(block, index, count);
          model[index] = count;
        }
        expect(model.map((_, index) => codec.get(block, index))).toEqual(model);
      }),
    );
  });

  it('lie where the format has them', () => {
    const set = (order: number, index: number, value: number) => {
      const block = new Uint8Array(8);
      new RefcountCodec(order).set(block, index, value);
      return Buffer.from(block).toString('hex');
    };
    expect(set(0, 0, 1)).toBe('0100000000000000');
    expect(set(0, 9, 1)).toBe('0002000000000000');
    expect(set(1, 3, 2)).toBe('8000000000000000');
    expect(set(2, 1, 0xa)).toBe('a000000000000000');
    expect(set(3, 2, 0xab)).toBe('0000ab0000000000');
    expect(set(4, 1, 0x1234)).toBe('0000123400000000');
    expect(set(5, 1, 0x12345678)).toBe('0000000012345678');
    expect(set(6, 0, 0x1f_2345_6789_abcd)).toBe('001f23456789abcd');
  });

  it.each(ORDERS)('of 2^%d bits that are free or used are found', (order) => {
    const codec = new RefcountCodec(order);
    const block = new Uint8Array(32);
    const entries = codec.entriesIn(32);
    codec.set(block, 1, 1);
    codec.set(block, entries - 1, codec.maximum);
    expect(codec.nextFree(block, 0, entries)).toBe(0);
    expect(codec.nextFree(block, 1, entries)).toBe(2);
    expect(codec.nextUsed(block, 2, entries)).toBe(entries - 1);
    expect(codec.nextUsed(block, 2, entries - 1)).toBe(entries - 1);
    expect(codec.nextFree(block, entries - 1, entries)).toBe(entries);
  });

  it('that do not fit are refused', () => {
    expect(() => new RefcountCodec(7)).toThrow(RangeError);
    expect(() => new RefcountCodec(4).set(new Uint8Array(8), 0, 65_536)).toThrow(RangeError);
    expect(() => new RefcountCodec(0).set(new Uint8Array(8), 0, -1)).toThrow(RangeError);
  });
});

const clusterBits = fc.integer({ min: 9, max: 21 });
const refcountOrder = fc.integer({ min: 0, max: 6 });

function entriesOf(bits: number, order: number): number {
  return (2 ** bits * 8) / 2 ** order;
}

describe('new areas', () => {
  it('hold what was asked for and the blocks that describe all of it, and no block more', () => {
    fc.assert(
      fc.property(
        clusterBits,
        refcountOrder,
        fc.nat(1000),
        fc.nat(70_000),
        (bits, order, first, count) => {
          const entries = entriesOf(bits, order);
          const area = planArea(first, count, entries);
          expect(area.start).toBe(first * entries);
          expect(count + area.blocks).toBeLessThanOrEqual(area.blocks * entries);
          expect(count + area.blocks - 1).toBeGreaterThan((area.blocks - 1) * entries - 1);
          for (const index of [first, first + area.blocks - 1]) {
            const cluster = blockCluster(area, index);
            expect(cluster).toBeGreaterThanOrEqual(area.start + count);
            expect(cluster).toBeLessThan(area.start + count + area.blocks);
            // Whatever block describes it is one of the new ones.
            const described = Math.floor(cluster / entries);
            expect(described).toBeGreaterThanOrEqual(first);
            expect(described).toBeLessThan(first + area.blocks);
          }
        },
      ),
    );
  });

  it('of refcount tables have room for what they add, and for half as much again', () => {
    fc.assert(
      fc.property(
        clusterBits,
        refcountOrder,
        fc.integer({ min: 1, max: 2 ** 17 }),
        (bits, order, clusters) => {
          const perCluster = 2 ** bits / 8;
          const entries = clusters * perCluster;
          const { area, clusters: grown } = planTableGrowth(
            entries,
            2 ** bits,
            entriesOf(bits, order),
          );
          expect(area.firstBlock).toBe(entries);
          expect(area.count).toBe(grown);
          expect(grown * perCluster).toBeGreaterThanOrEqual(entries + area.blocks);
          expect(grown * perCluster).toBeGreaterThanOrEqual(entries * 1.5);
        },
      ),
    );
  });

  it('of new images count every cluster', () => {
    fc.assert(
      fc.property(clusterBits, refcountOrder, fc.nat(10_000_000), (bits, order, rest) => {
        const layout = newLayout(rest, 2 ** bits, entriesOf(bits, order));
        expect(layout.rest).toBe(1 + layout.tableClusters + layout.blocks);
        expect(layout.total).toBe(layout.rest + rest);
        expect(layout.blocks * entriesOf(bits, order)).toBeGreaterThanOrEqual(layout.total);
        expect(layout.tableClusters * 2 ** bits).toBeGreaterThanOrEqual(layout.blocks * 8);
      }),
    );
  });
});
