import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { plan, planGranularity } from '#dist/copy/plan.js';
import { Context, DIRTY, ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';

const PiB = 2 ** 50;
const PAGE = 65536;
const DIRTY_CONTEXT = `${Context.dirtyPrefix}daily`;

const runs = (bitmap: Bitmap) => [...bitmap.ranges()].map(({ offset, length }) => [offset, length]);

describe('plan', () => {
  it('numbers at most 2^35 granules, by sectors up to 16 TiB', () => {
    expect(planGranularity(0)).toBe(512);
    expect(planGranularity(2 ** 44)).toBe(512);
    expect(planGranularity(2 ** 44 + 1)).toBe(1024);
    expect(planGranularity(PiB)).toBe(32768);
  });

  it('takes what does not read as zero from a device that is nearly all hole', async () => {
    const source = fakeDevice(PiB);
    await source.write(5 * PAGE, pattern(PAGE));
    await source.write(PiB - PAGE, pattern(PAGE));
    const { data, zero, totals } = await plan({ source });
    expect(runs(data)).toEqual([
      [5 * PAGE, PAGE],
      [PiB - PAGE, PAGE],
    ]);
    expect(zero.dirtyBytes).toBe(PiB - 2 * PAGE);
    expect(totals).toEqual({
      size: PiB,
      cleanBytes: 0,
      dataBytes: 2 * PAGE,
      zeroBytes: 0,
      holeBytes: PiB - 2 * PAGE,
    });
  });

  it('takes all of a device that knows nothing of its allocation', async () => {
    const capabilities = { ...fakeDevice(1).capabilities, contexts: [] };
    const { data, zero } = await plan({ source: fakeDevice(10 * PAGE, { capabilities }) });
    expect(data.dirtyBytes).toBe(10 * PAGE);
    expect(zero.count).toBe(0);
  });

  it('reads a hole that is not known to be zero', async () => {
    const source = fakeDevice(PAGE, {
      extents: async (offset, length) => [ExtentList.of(offset, length, Status.hole)],
    });
    expect((await plan({ source })).data.dirtyBytes).toBe(PAGE);
  });

  it('calls a granule that is zero only in part data, and nothing twice', async () => {
    const source = fakeDevice(4096, {
      extents: async (offset) => {
        const list = new ExtentList(offset);
        list.push(100, Status.zero);
        list.push(100, Status.data);
        list.push(4096 - 200, Status.zero);
        return [list];
      },
    });
    const { data, zero } = await plan({ source });
    expect(runs(data)).toEqual([[0, 512]]);
    expect(runs(zero)).toEqual([[512, 4096 - 512]]);
  });

  it('keeps what is dirty and reads as zero: it is to be zeroed, never left out', async () => {
    const source = fakeDevice(8 * PAGE);
    await source.write(2 * PAGE, pattern(PAGE));
    const bitmap = new Bitmap({ size: source.size, granularity: PAGE });
    bitmap.set(PAGE, 3 * PAGE);
    const { data, zero, totals } = await plan({ source, bitmap });
    expect(runs(data)).toEqual([[2 * PAGE, PAGE]]);
    expect(runs(zero)).toEqual([
      [PAGE, PAGE],
      [3 * PAGE, PAGE],
    ]);
    expect(totals.cleanBytes).toBe(5 * PAGE);
    expect(bitmap.dirtyBytes).toBe(3 * PAGE);
  });

  it('takes only what a context of the source calls dirty', async () => {
    const source = fakeDevice(8 * PAGE, {
      capabilities: {
        ...fakeDevice(1).capabilities,
        contexts: [Context.allocation, DIRTY_CONTEXT],
      },
      extents: async (offset, length) => {
        const dirty = new ExtentList(offset);
        dirty.push(PAGE, 0);
        dirty.push(2 * PAGE, DIRTY);
        dirty.push(length - 3 * PAGE, 0);
        const allocation = new ExtentList(offset);
        allocation.push(2 * PAGE, Status.data);
        allocation.push(length - 2 * PAGE, Status.hole | Status.zero);
        return [allocation, dirty];
      },
    });
    const { data, zero } = await plan({ source, context: DIRTY_CONTEXT });
    expect(runs(data)).toEqual([[PAGE, PAGE]]);
    expect(runs(zero)).toEqual([[2 * PAGE, PAGE]]);
  });

  it('never zeroes the clean part of a granule that is dirty and zero in another', async () => {
    const source = fakeDevice(8192, {
      extents: async (offset, length) => [ExtentList.of(offset, length, Status.zero)],
    });
    const bitmap = new Bitmap({ size: source.size, granularity: 512 });
    bitmap.set(512, 4096);
    const { data, zero } = await plan({ source, bitmap, granularity: 1024 });
    // The first and the last granule hold a clean sector each, so their dirty sectors are copied.
    expect(runs(zero)).toEqual([[1024, 3072]]);
    expect(runs(data)).toEqual([
      [0, 1024],
      [4096, 1024],
    ]);
  });

  it('refuses a bitmap of another size, two origins, and a context that tells no dirt', async () => {
    const source = fakeDevice(PAGE);
    const bitmap = new Bitmap({ size: 2 * PAGE, granularity: 512 });
    await expect(plan({ source, bitmap })).rejects.toMatchObject({ code: 'ERR_BITMAP_MISMATCH' });
    await expect(plan({ source, bitmap, context: DIRTY_CONTEXT })).rejects.toThrow(TypeError);
    await expect(plan({ source, context: Context.allocation })).rejects.toThrow(TypeError);
  });

  it('plans an empty device', async () => {
    const { data, zero } = await plan({ source: fakeDevice(0) });
    expect(data.count + zero.count).toBe(0);
  });
});
