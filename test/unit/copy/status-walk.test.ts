import { describe, expect, it } from 'vitest';
import { walkStatus } from '#dist/copy/plan/status-walk.js';
import { LacunaError } from '#dist/errors/index.js';
import { Context, DIRTY, ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';

const SIZE = 2 ** 40;
const DIRTY_CONTEXT = `${Context.dirtyPrefix}b`;

interface Visit {
  offset: number;
  length: number;
  flags: readonly number[];
}

async function walkAll(
  device: ReturnType<typeof fakeDevice>,
  ranges = [{ offset: 0, length: device.size }],
  contexts: string[] = [Context.allocation],
) {
  const visits: Visit[] = [];
  const refusals: LacunaError[] = [];
  await walkStatus({
    device,
    ranges,
    contexts,
    visit: (offset, length, flags) => visits.push({ offset, length, flags: [...flags] }),
    refused: (error) => refusals.push(error),
  });
  visits.sort((a, b) => a.offset - b.offset);
  return { visits, refusals };
}

/** Neighbouring visits with equal flags joined, which is what the visits say together. */
function joined(visits: Visit[]): Visit[] {
  const all: Visit[] = [];
  for (const visit of visits) {
    const last = all.at(-1);
    const adjoins = last && last.offset + last.length === visit.offset;
    if (adjoins && last.flags.join() === visit.flags.join()) last.length += visit.length;
    else all.push({ ...visit });
  }
  return all;
}

const refuse = () =>
  Promise.reject(new LacunaError('ERR_NBD_REMOTE', 'no status', { errno: 'EIO' }));

describe('walkStatus', () => {
  it('asks once when one answer tells all', async () => {
    let queries = 0;
    const device = fakeDevice(SIZE, {
      extents: async (offset, length) => {
        queries++;
        return [ExtentList.of(offset, length, Status.hole | Status.zero)];
      },
    });
    const { visits } = await walkAll(device);
    expect(queries).toBe(1);
    expect(visits).toEqual([{ offset: 0, length: SIZE, flags: [Status.hole | Status.zero] }]);
  });

  it('visits every byte once, whatever the answers cover and wherever contexts break', async () => {
    const answers = fc.array(
      fc.tuple(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 0, max: 7 })),
      {
        minLength: 1,
        maxLength: 5,
      },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(answers, { minLength: 1, maxLength: 20 }), async (script) => {
        const MiB = 2 ** 20;
        const size = 64 * 1024 * MiB;
        let turn = 0;
        const device = fakeDevice(size, {
          capabilities: {
            ...fakeDevice(1).capabilities,
            contexts: [Context.allocation, DIRTY_CONTEXT],
          },
          extents: async (offset, _length, contexts) =>
            contexts.map(() => {
              const list = new ExtentList(offset);
              for (const [length, flags] of script[turn++ % script.length])
                list.push(length * MiB, flags);
              return list;
            }),
        });
        const { visits } = await walkAll(
          device,
          [{ offset: 0, length: size }],
          [Context.allocation, DIRTY_CONTEXT],
        );
        let end = 0;
        for (const visit of visits) {
          expect(visit.offset).toBe(end);
          end += visit.length;
        }
        expect(end).toBe(size);
      }),
      { numRuns: 50 },
    );
  });

  it('asks only inside the ranges it was given', async () => {
    const asked: number[] = [];
    const device = fakeDevice(SIZE, {
      extents: async (offset, length) => {
        asked.push(offset, offset + length);
        return [ExtentList.of(offset, length, Status.data)];
      },
    });
    const ranges = [
      { offset: 4096, length: 8192 },
      { offset: SIZE / 2, length: 512 },
    ];
    const { visits } = await walkAll(device, ranges);
    expect(asked).toEqual([4096, 12288, SIZE / 2, SIZE / 2 + 512]);
    expect(visits.map(({ offset, length }) => ({ offset, length }))).toEqual(ranges);
  });

  it('takes a refused range for data, and asks again behind it', async () => {
    let queries = 0;
    const device = fakeDevice(SIZE, {
      extents: async (offset, length) =>
        queries++ === 0 ? refuse() : [ExtentList.of(offset, length, Status.zero)],
    });
    const { visits, refusals } = await walkAll(device);
    const refused = 128 * 2 ** 20;
    expect(refusals).toHaveLength(1);
    expect(joined(visits)).toEqual([
      { offset: 0, length: refused, flags: [Status.data] },
      { offset: refused, length: SIZE - refused, flags: [Status.zero] },
    ]);
  });

  it.each([
    'ERR_NBD_REMOTE',
    'ERR_NBD_PROTOCOL',
    'ERR_DEVICE_IO',
    'ERR_DEVICE_UNSUPPORTED',
  ] as const)('takes %s for an answer that says nothing', async (code) => {
    let queries = 0;
    const device = fakeDevice(2 ** 20, {
      extents: async (offset, length) => {
        if (queries++ === 0) throw new LacunaError(code, 'nonsense');
        return [ExtentList.of(offset, length, Status.zero)];
      },
    });
    const ranges = [0, 1, 2].map((i) => ({ offset: i * 4096, length: 4096 }));
    const { visits, refusals } = await walkAll(device, ranges);
    expect(refusals).toHaveLength(1);
    expect(visits.map(({ flags }) => flags[0])).toEqual([Status.data, Status.zero, Status.zero]);
  });

  it('takes lists that begin elsewhere, or say nothing, for answers that say nothing', async () => {
    for (const list of [ExtentList.of(8192, 4096, Status.zero), new ExtentList(0)]) {
      const device = fakeDevice(65536, { extents: async () => [list] });
      const { visits, refusals } = await walkAll(device);
      expect(refusals.length).toBeGreaterThan(0);
      expect(joined(visits)).toEqual([{ offset: 0, length: 65536, flags: [Status.data] }]);
    }
  });

  it('believes no extent behind the end of the device', async () => {
    const device = fakeDevice(65536, {
      extents: async (offset) => [ExtentList.of(offset, 2 ** 50, Status.zero)],
    });
    const { visits } = await walkAll(device);
    expect(visits).toEqual([{ offset: 0, length: 65536, flags: [Status.zero] }]);
  });

  it('stops asking a device that always refuses, and calls everything data and dirty', async () => {
    let queries = 0;
    const device = fakeDevice(2 ** 50, {
      capabilities: {
        ...fakeDevice(1).capabilities,
        contexts: [Context.allocation, DIRTY_CONTEXT],
      },
      extents: () => {
        queries++;
        return refuse();
      },
    });
    const { visits } = await walkAll(
      device,
      [{ offset: 0, length: 2 ** 50 }],
      [Context.allocation, DIRTY_CONTEXT],
    );
    expect(queries).toBeLessThan(200);
    expect(joined(visits)).toEqual([{ offset: 0, length: 2 ** 50, flags: [Status.data, DIRTY] }]);
  });

  it('asks no more after it gave up, however many ranges are left', async () => {
    let queries = 0;
    const device = fakeDevice(2 ** 30, {
      extents: () => {
        queries++;
        return refuse();
      },
    });
    const ranges = Array.from({ length: 10_000 }, (_, i) => ({ offset: i * 8192, length: 512 }));
    const { visits } = await walkAll(device, ranges);
    expect(visits).toHaveLength(10_000);
    expect(queries).toBeLessThan(100);
  });

  it('stops asking a device that tells next to nothing at a time, and says so', async () => {
    let queries = 0;
    const device = fakeDevice(SIZE, {
      extents: async (offset) => {
        queries++;
        return [ExtentList.of(offset, 512, Status.zero)];
      },
    });
    const { visits, refusals } = await walkAll(device);
    expect(queries).toBeLessThan(5000);
    expect(refusals.map(({ message }) => message)).toEqual([
      expect.stringContaining('in one answer'),
    ]);
    expect(visits.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
    expect(joined(visits).at(-1)).toMatchObject({ flags: [Status.data] });
  });

  it('goes on asking a device that tells one extent of 64 KiB at a time', async () => {
    let queries = 0;
    const device = fakeDevice(2 ** 30, {
      extents: async (offset) => {
        const status = (offset / 65536) % 2 === 0 ? Status.data : Status.zero;
        queries++;
        return [ExtentList.of(offset, 65536, status)];
      },
    });
    const { visits, refusals } = await walkAll(device);
    expect(queries).toBe(2 ** 30 / 65536);
    expect(visits).toHaveLength(queries);
    expect(refusals).toEqual([]);
  });

  it('fails when the connection is lost, because that is no answer', async () => {
    const device = fakeDevice(SIZE, {
      extents: () => Promise.reject(new LacunaError('ERR_NBD_DISCONNECTED', 'gone')),
    });
    await expect(walkAll(device)).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
  });
});
