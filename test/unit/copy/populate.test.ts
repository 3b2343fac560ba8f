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
    expect(() => populate({ sources, targets, mode })).toThrow(TypeError);
    expect(() => populate({ sources, targets: [] })).toThrow(/targets/);
    expect(() => populate({ sources: [], targets })).toThrow(/sources/);
  });

  it('asks nothing while it is paused, and ends when it is stopped', async () => {
    const SIZE = 64 * 1024 * 1024;
    let asked = 0;
    const source = fakeDevice(SIZE, {
      // So that every question is followed by another one.
      extents: async (offset) => {
        asked++;
        if (asked === 3) jobs[0].pause();
        const list = new ExtentList(offset);
        list.push(SECTOR, Status.data);
        return [list];
      },
    });
    const targets = [new Bitmap({ size: SIZE, granularity: 65536 })];
    const jobs = [populate({ sources: [source], targets })];
    const [job] = jobs;
    job.setRate(1);
    await expect.poll(() => job.state).toBe('paused');
    const { doneBytes } = job.progress();
    expect(doneBytes).toBeGreaterThan(0);
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    expect(asked).toBe(3);
    job.resume();
    await expect.poll(() => asked).toBeGreaterThan(3);
    job.pause();
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(job.progress()).toMatchObject({ state: 'stopped', totalBytes: SIZE });
  });
});
