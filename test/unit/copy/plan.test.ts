import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { planGranularity } from '#dist/copy/plan/granularity.js';
import { plan } from '#dist/copy/plan/plan.js';
import { Context, DIRTY, ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';

const PiB = 2 ** 50;
const PAGE = 65536;
const DIRTY_CONTEXT = `${Context.dirtyPrefix}daily`;

const HOLE = Status.hole | Status.zero;

type Extents = readonly (readonly [length: number, flags: number])[];

/** A device that answers these contexts, and notes the queries: offset, length and contexts. */
function layeredDevice(size: number, layers: Record<string, Extents>, asked: unknown[] = []) {
  return fakeDevice(size, {
    capabilities: { ...fakeDevice(1).capabilities, contexts: Object.keys(layers) },
    extents: async (offset, length, contexts) => {
      asked.push([offset, length, contexts.join()]);
      return contexts.map((context) => clip(layers[context], offset, offset + length));
    },
  });
}

function clip(extents: Extents, from: number, end: number): ExtentList {
  const list = new ExtentList(from);
  let at = 0;
  for (const [length, flags] of extents) {
    list.push(Math.max(0, Math.min(end, at + length) - Math.max(from, at)), flags);
    at += length;
  }
  return list;
}

const runs = (bitmap: Bitmap) => [...bitmap.ranges()].map(({ offset, length }) => [offset, length]);

describe('plan', () => {
  it('gives back its bitmaps at the end of a block', async () => {
    const source = layeredDevice(PAGE, { [Context.allocation]: [[PAGE, 0]] });
    let kept: Bitmap[];
    {
      using made = await plan({ source });
      kept = [made.data, made.zero];
      expect(runs(made.data)).toEqual([[0, PAGE]]);
    }
    for (const bitmap of kept) expect(() => bitmap.count).toThrow('freed');
  });

  it('numbers at most 2^34 granules, by sectors up to 8 TiB', () => {
    expect(planGranularity(0)).toBe(512);
    expect(planGranularity(2 ** 43)).toBe(512);
    expect(planGranularity(2 ** 43 + 1)).toBe(1024);
    expect(planGranularity(PiB)).toBe(65536);
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
    const source = layeredDevice(8 * PAGE, {
      [Context.allocation]: [
        [2 * PAGE, Status.data],
        [6 * PAGE, HOLE],
      ],
      [DIRTY_CONTEXT]: [
        [PAGE, 0],
        [2 * PAGE, DIRTY],
        [5 * PAGE, 0],
      ],
    });
    const { data, zero } = await plan({ source, context: DIRTY_CONTEXT });
    expect(runs(data)).toEqual([[PAGE, PAGE]]);
    expect(runs(zero)).toEqual([[2 * PAGE, PAGE]]);
  });

  it('takes what any of several contexts or bitmaps calls dirty', async () => {
    const weekly = `${Context.dirtyPrefix}weekly`;
    const source = layeredDevice(8 * PAGE, {
      [Context.allocation]: [[8 * PAGE, Status.data]],
      [DIRTY_CONTEXT]: [
        [2 * PAGE, DIRTY],
        [6 * PAGE, 0],
      ],
      [weekly]: [
        [PAGE, 0],
        [2 * PAGE, DIRTY],
        [5 * PAGE, 0],
      ],
    });
    const context = [DIRTY_CONTEXT, weekly];
    expect(runs((await plan({ source, context })).data)).toEqual([[0, 3 * PAGE]]);

    const coarse = new Bitmap({ size: source.size, granularity: PAGE });
    coarse.set(0, PAGE);
    const fine = new Bitmap({ size: source.size, granularity: 512 });
    fine.set(5 * PAGE, 512);
    const { data } = await plan({ source, bitmap: [coarse, fine] });
    expect(runs(data)).toEqual([
      [0, PAGE],
      [5 * PAGE, 512],
    ]);
  });

  it('takes only the top layer where depth tells which that is, its zeroes included', async () => {
    const source = layeredDevice(8 * PAGE, {
      [Context.allocation]: [
        [3 * PAGE, Status.data],
        [2 * PAGE, HOLE],
        [3 * PAGE, Status.zero],
      ],
      [Context.depth]: [
        [PAGE, 0],
        [PAGE, 2],
        [2 * PAGE, 1],
        [PAGE, 0],
        [PAGE, 1],
        [2 * PAGE, 3],
      ],
    });
    const { data, zero, totals, warnings } = await plan({ source, mode: 'top' });
    expect(runs(data)).toEqual([[2 * PAGE, PAGE]]);
    expect(runs(zero)).toEqual([
      [3 * PAGE, PAGE],
      [5 * PAGE, PAGE],
    ]);
    expect(totals.cleanBytes).toBe(5 * PAGE);
    expect(warnings).toEqual([]);
  });

  it('takes everything for the top layer where nothing tells, and says so', async () => {
    const source = layeredDevice(4 * PAGE, {
      [Context.allocation]: [
        [PAGE, Status.data],
        [PAGE, Status.zero],
        [PAGE, Status.hole],
        [PAGE, HOLE],
      ],
    });
    const { data, zero, warnings } = await plan({ source, mode: 'top' });
    expect(runs(data)).toEqual([
      [0, PAGE],
      [2 * PAGE, PAGE],
    ]);
    expect(runs(zero)).toEqual([
      [PAGE, PAGE],
      [3 * PAGE, PAGE],
    ]);
    expect(warnings).toEqual([expect.stringContaining(Context.depth)]);
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

  it('refuses a bitmap of another size, and a scope that contradicts itself', async () => {
    const source = fakeDevice(PAGE);
    const bitmap = new Bitmap({ size: 2 * PAGE, granularity: 512 });
    await expect(plan({ source, bitmap })).rejects.toMatchObject({ code: 'ERR_BITMAP_MISMATCH' });
    const wrong = [
      { bitmap, context: DIRTY_CONTEXT },
      { context: Context.allocation },
      { context: [DIRTY_CONTEXT, Context.depth] },
      { mode: 'top' as const, bitmap },
      { mode: 'incremental' as const },
      { mode: 'all' as 'full' },
    ];
    for (const scope of wrong) await expect(plan({ source, ...scope })).rejects.toThrow(TypeError);
  });

  it('plans an empty device', async () => {
    const { data, zero } = await plan({ source: fakeDevice(0) });
    expect(data.count + zero.count).toBe(0);
  });

  it('opens a path itself, and closes it again', async () => {
    const { totals } = await plan({ source: 'driver=null,size=1T' });
    expect(totals).toMatchObject({ size: 2 ** 40, holeBytes: 2 ** 40 });
  });

  it('asks once about an empty petabyte, whatever the mode', async () => {
    const asked: unknown[] = [];
    const layers = {
      [Context.allocation]: [[PiB, HOLE]],
      [Context.depth]: [[PiB, 0]],
      [DIRTY_CONTEXT]: [[PiB, 0]],
    } as const;
    const source = layeredDevice(PiB, layers, asked);
    await plan({ source });
    await plan({ source, mode: 'top' });
    await plan({ source, context: DIRTY_CONTEXT });
    await plan({ source, bitmap: new Bitmap({ size: PiB, granularity: PAGE }) });
    expect(asked).toEqual([
      [0, PiB, Context.allocation],
      [0, PiB, `${Context.allocation},${Context.depth}`],
      [0, PiB, DIRTY_CONTEXT],
    ]);
  });

  it('asks for allocation only where something is dirty', async () => {
    const TiB = 2 ** 40;
    const asked: [number, number, string][] = [];
    const layers = { [Context.allocation]: [[PiB, Status.data]] } as const;
    const source = layeredDevice(PiB, layers, asked);
    const bitmap = new Bitmap({ size: PiB, granularity: PAGE });
    for (let i = 0; i < 8; i++) bitmap.set(i * TiB, PAGE);
    const { data } = await plan({ source, bitmap });
    expect(data.dirtyBytes).toBe(8 * PAGE);
    expect(asked).toHaveLength(8);
    expect(asked.every(([, length]) => length === PAGE)).toBe(true);
  });

  it('asks about many dirty ranges at once where the disk is in few pieces', async () => {
    const asked: unknown[] = [];
    const size = 2 ** 38;
    const layers = { [Context.allocation]: [[size, Status.data]] } as const;
    const source = layeredDevice(size, layers, asked);
    const bitmap = new Bitmap({ size, granularity: PAGE });
    for (let at = 0; at < size; at += 2 ** 24) bitmap.set(at, PAGE);
    const { data } = await plan({ source, bitmap });
    data.xor(bitmap);
    expect(data.count).toBe(0);
    expect(asked.length).toBeLessThan(bitmap.count / 10);
  });

  it('does not make a server look through long gaps, though they are one piece to those who ask', async () => {
    let bytes = 0;
    const size = 2 ** 43;
    const source = fakeDevice(size, {
      extents: async (offset, length) => {
        bytes += length;
        return [ExtentList.of(offset, length, Status.data)];
      },
    });
    const bitmap = new Bitmap({ size, granularity: PAGE });
    for (let at = 0; at < size; at += 2 ** 29) bitmap.set(at, PAGE);
    await plan({ source, bitmap });
    expect(bytes).toBe(bitmap.dirtyBytes);
  });

  it('does not ask about the gaps between dirty ranges where those are in many pieces', async () => {
    let told = 0;
    const size = 2 ** 34;
    const source = fakeDevice(size, {
      extents: async (offset, length) => {
        const list = new ExtentList(offset);
        while (list.end < offset + length) {
          list.push(4096, (list.end / 4096) % 2 === 0 ? Status.data : HOLE);
          told++;
        }
        return [list];
      },
    });
    const bitmap = new Bitmap({ size, granularity: PAGE });
    for (let at = 0; at < size; at += 2 ** 24) bitmap.set(at, PAGE);
    const { totals } = await plan({ source, bitmap });
    expect(totals.dataBytes).toBe(bitmap.dirtyBytes / 2);
    expect(totals.holeBytes).toBe(bitmap.dirtyBytes / 2);
    expect(told).toBeLessThan((size / 4096) * 0.05);
  });

  it('takes what makes no sense for data: flags that nobody has defined, depths, dirt', async () => {
    const layers = {
      [Context.allocation]: [
        [PAGE, Status.zero | 8],
        [PAGE, 2 ** 40 + Status.zero],
        [6 * PAGE, HOLE],
      ],
      [DIRTY_CONTEXT]: [
        [2 * PAGE, 0],
        [PAGE, 2],
        [5 * PAGE, 0],
      ],
    } as const;
    const source = layeredDevice(8 * PAGE, layers);
    expect(runs((await plan({ source })).data)).toEqual([[0, 2 * PAGE]]);
    const dirty = await plan({ source, context: DIRTY_CONTEXT });
    expect(runs(dirty.zero)).toEqual([[2 * PAGE, PAGE]]);
  });

  it('is what a naive model says, whatever the layers, the granularity and the answers', async () => {
    const SECTORS = 64;
    const layer = fc.array(fc.integer({ min: 0, max: 3 }), {
      minLength: SECTORS,
      maxLength: SECTORS,
    });
    await fc.assert(
      fc.asyncProperty(
        layer,
        layer,
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
        fc.constantFrom(512, 1024, 4096),
        fc.constantFrom('full' as const, 'top' as const, 'incremental' as const),
        fc.boolean(),
        async (allocation, marks, cuts, granularity, mode, aligned) => {
          const status = allocation.map(
            (pick) => [Status.data, Status.zero, HOLE, Status.hole][pick],
          );
          const layers: Record<string, number[]> = {
            [Context.allocation]: status,
            [Context.depth]: marks,
            [DIRTY_CONTEXT]: marks.map((mark) => (mark === 3 ? DIRTY : 0)),
          };
          let turn = 0;
          const source = fakeDevice(SECTORS * 512, {
            capabilities: { ...fakeDevice(1).capabilities, contexts: Object.keys(layers) },
            extents: async (offset, _length, contexts) => {
              await new Promise((resolve) => setImmediate(resolve));
              return contexts.map((context) => {
                const list = new ExtentList(offset);
                // Less than was asked, or more, or not in whole granules.
                const end = offset + cuts[turn++ % cuts.length] * (aligned ? granularity : 700);
                while (list.end < Math.min(end, source.size)) {
                  const at = Math.floor(list.end / 512);
                  list.push(Math.min(end, (at + 1) * 512) - list.end, layers[context][at]);
                }
                return list;
              });
            },
          });
          const context = mode === 'incremental' ? DIRTY_CONTEXT : undefined;
          const { data, zero, totals } = await plan({ source, mode, context, granularity });
          const counts = (i: number) =>
            mode === 'full' || (mode === 'top' ? marks[i] === 1 : marks[i] === 3);
          const isZero = (i: number) => (status[i] & Status.zero) !== 0;
          const sectors = status.map((_, i) => i);
          const inGranule = granularity / 512;
          for (let first = 0; first < SECTORS; first += inGranule) {
            const granule = sectors.slice(first, first + inGranule);
            const counted = granule.filter(counts);
            // Zeroed as a whole, or read if any of it counts.
            const zeroed = counted.length === inGranule && counted.every(isZero);
            const made = zero.get(first * 512);
            // A granule that two answers tell half of each may be read although it is zero, never the reverse.
            if (aligned) expect(made).toBe(zeroed);
            else if (!zeroed) expect(made).toBe(false);
            expect(data.get(first * 512)).toBe(counted.length > 0 && !made);
          }
          const moved = sectors.filter((i) => counts(i) && !isZero(i)).length * 512;
          const clean = sectors.filter((i) => !counts(i)).length * 512;
          expect(totals).toMatchObject({ dataBytes: moved, cleanBytes: clean });
        },
      ),
      { numRuns: 150 },
    );
  });
});
