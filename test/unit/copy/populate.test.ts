import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { type Device, MemoryDriver } from '#dist/block/index.js';
import { populate } from '#dist/copy/index.js';
import { Context, ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';

const SECTOR = 512;
const HOLE = Status.hole | Status.zero;

/** A device with these flags for each sector. */
function sectorDevice(allocation: readonly number[], depth: readonly number[] = []): Device {
  const layers: Record<string, readonly number[]> = { [Context.allocation]: allocation };
  if (depth.length > 0) layers[Context.depth] = depth;
  const size = allocation.length * SECTOR;
  return fakeDevice(size, {
    capabilities: { ...new MemoryDriver({ size }).capabilities, contexts: Object.keys(layers) },
    extents: async (offset, _length, contexts) =>
      contexts.map((context) => {
        const list = new ExtentList(offset);
        while (list.end < size) list.push(SECTOR, layers[context][list.end / SECTOR]);
        return list;
      }),
  });
}

describe('populate', () => {
  it('marks what a naive model marks, from all sources, into all targets', async () => {
    const SECTORS = 48;
    const of = (most: number) => fc.array(fc.nat(most), { minLength: SECTORS, maxLength: SECTORS });
    const source = fc.record({ allocation: of(3), depth: of(3) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(source, { minLength: 1, maxLength: 3 }),
        fc.uniqueArray(fc.constantFrom(512, 1024, 8192, 65536), { minLength: 1 }),
        fc.constantFrom('full' as const, 'top' as const),
        fc.nat(SECTORS - 1),
        async (sources, granularities, mode, before) => {
          const statuses = sources.map(({ allocation }) =>
            allocation.map((pick) => [Status.data, Status.zero, HOLE, Status.hole][pick]),
          );
          const size = SECTORS * SECTOR;
          const targets = granularities.map((granularity) => new Bitmap({ size, granularity }));
          for (const target of targets) target.set(before * SECTOR, 1);
          const devices = sources.map(({ depth }, i) => sectorDevice(statuses[i], depth));
          expect(await populate({ sources: devices, targets, mode })).toEqual([]);
          const marked = (sector: number) =>
            sector === before ||
            sources.some(({ depth }, i) =>
              mode === 'top' ? depth[sector] === 1 : (statuses[i][sector] & Status.zero) === 0,
            );
          for (const target of targets) {
            const inGranule = target.granularity / SECTOR;
            for (let sector = 0; sector < SECTORS; sector++) {
              const first = sector - (sector % inGranule);
              const granule = Array.from({ length: inGranule }, (_, i) => first + i);
              const dirty = granule.filter((each) => each < SECTORS).some(marked);
              expect(target.get(sector * SECTOR)).toBe(dirty);
            }
            target.free();
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('opens what it is given as text, and takes bitmaps of the same size only', async () => {
    const target = new Bitmap({ size: 2 ** 40, granularity: 65536 });
    expect(await populate({ sources: ['driver=null,size=1T'], targets: [target] })).toEqual([]);
    expect(target.count).toBe(0);
    const sources = ['driver=null,size=2T'];
    await expect(populate({ sources, targets: [target] })).rejects.toMatchObject({
      code: 'ERR_BITMAP_MISMATCH',
    });
    const mode = 'incremental' as 'full';
    const targets = [new Bitmap({ size: 4096, granularity: 512 })];
    await expect(populate({ sources, targets, mode })).rejects.toThrow(TypeError);
    await expect(populate({ sources, targets: [] })).rejects.toThrow(/targets/);
    await expect(populate({ sources: [], targets })).rejects.toThrow(/sources/);
  });
});
