/** What a copy does about zeroes: what is known, how they are written, and how they are found. */
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import {
  Device,
  type Driver,
  type Limits,
  MemoryDriver,
  type ZeroOptions,
} from '#dist/block/index.js';
import { copy } from '#dist/copy/index.js';
import { ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice, firstDifference, pattern } from '../../support/fake-device.js';
import { runHere } from '../../support/run-here.js';

const KIB = 1024;
const GIB = 2 ** 30;
const SIZE = 2 ** 40;
const PAGE = 64 * KIB;

const { capabilities } = new MemoryDriver({ size: 1 });
const UNKNOWN = { ...capabilities, knownZero: false, contexts: [] };

interface Zeroed extends Pick<ZeroOptions, 'unmap' | 'fast'> {
  offset: number;
  length: number;
}

/** A target that notes how it is zeroed. */
function notingTarget(size: number, change: Partial<Driver> = {}) {
  const memory = new MemoryDriver({ size });
  const zeroed: Zeroed[] = [];
  const written: Array<[number, number]> = [];
  const device = fakeDevice(size, {
    read: (offset, target) => memory.read(offset, target),
    write: async (offset, bytes) => {
      written.push([offset, bytes.length]);
      await memory.write(offset, bytes);
    },
    zero: async (offset, length, { unmap, fast }) => {
      zeroed.push({ offset, length, unmap, fast });
      await memory.zero(offset, length);
    },
    ...change,
  });
  return { device, memory, zeroed, written };
}

async function sourceWith(size: number, ...pages: number[]) {
  const source = fakeDevice(size);
  for (const page of pages) await source.write(page * PAGE, pattern(PAGE, page));
  return source;
}

describe('what reads as zero', () => {
  it('is left alone where the status of the target says that it reads as zero', async () => {
    const old = 3 * GIB;
    const { device, zeroed } = notingTarget(SIZE, {
      capabilities: { ...capabilities, knownZero: false, fastZero: false },
      extents: async (offset, length) => {
        const list = new ExtentList(offset);
        if (offset < old) list.push(old - offset, Status.hole | Status.zero);
        list.push(offset + length - list.end, Status.data);
        return [list];
      },
    });
    await copy({ source: await sourceWith(SIZE, 0), target: device });
    expect(Math.min(...zeroed.map(({ offset }) => offset))).toBe(old);
    expect(zeroed.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE - old);
  });

  it('is zeroed in large requests that touch nothing of the data, even where a fast one could do all', async () => {
    const { device, zeroed, written } = notingTarget(SIZE, { capabilities: UNKNOWN });
    await copy({ source: await sourceWith(SIZE, 5, 9), target: device });
    expect(zeroed.length).toBeLessThanOrEqual(SIZE / GIB + 3);
    expect(zeroed.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE - 2 * PAGE);
    for (const page of [5, 9]) {
      const overlaps = ({ offset, length }: Zeroed) =>
        offset < (page + 1) * PAGE && offset + length > page * PAGE;
      expect(zeroed.some(overlaps)).toBe(false);
    }
    expect(written).toEqual([
      [5 * PAGE, PAGE],
      [9 * PAGE, PAGE],
    ]);
  });

  it('is zeroed without making holes, if that was asked', async () => {
    for (const fastZero of [true, false]) {
      const { device, zeroed } = notingTarget(SIZE, { capabilities: { ...UNKNOWN, fastZero } });
      await copy({ source: await sourceWith(SIZE, 5), target: device, unmap: false });
      expect(zeroed.length).toBeGreaterThan(0);
      expect(zeroed.every(({ unmap }) => unmap === false)).toBe(true);
    }
  });

  it('is never written as zero where only a part of the target is copied', async () => {
    const { device, memory, zeroed } = notingTarget(16 * PAGE, { capabilities: UNKNOWN });
    await memory.write(0, pattern(16 * PAGE));
    const bitmap = new Bitmap({ size: 16 * PAGE, granularity: PAGE });
    bitmap.set(3 * PAGE, 2 * PAGE);
    await copy({ source: await sourceWith(16 * PAGE, 4), target: device, bitmap });
    expect(zeroed).toMatchObject([{ offset: 3 * PAGE, length: PAGE }]);
  });
});

describe('a target that is said to be zero', () => {
  const bitmap = new Bitmap({ size: PAGE, granularity: PAGE });
  it.each([
    ['a bitmap', { bitmap }],
    ['a context', { context: 'qemu:dirty-bitmap:x' }],
    ['the top layer', { mode: 'top' } as const],
  ])('is refused for a copy of %s, whose target holds the rest', async (_, scope) => {
    const [source, target] = [fakeDevice(PAGE), fakeDevice(PAGE)];
    expect(() => copy({ source, target, targetIsZero: true, ...scope })).toThrow(TypeError);
    const flags = Object.entries(scope).flatMap(([name, value]) => [
      `--${name}`,
      name === 'bitmap' ? 'b=file' : `${value}`,
    ]);
    for (const ends of [
      ['a.raw', 'b.raw'],
      ['--dry-run', 'a.raw'],
    ]) {
      const { code, stderr } = await runHere(['copy', '--target-is-zero', ...flags, ...ends]);
      expect([code, stderr]).toEqual([2, expect.stringContaining('leave out --target-is-zero')]);
    }
  });

  it('gets no zeroes in a full copy', async () => {
    const { device, zeroed } = notingTarget(SIZE, { capabilities: UNKNOWN });
    await copy({ source: await sourceWith(SIZE, 5), target: device, targetIsZero: true });
    expect(zeroed).toEqual([]);
  });
});

describe('zeroes inside data', () => {
  /** Data from the third KiB on, with zeroes of different lengths in it. */
  async function withZeroes() {
    const size = 20 * PAGE;
    const memory = fakeDevice(size);
    await memory.write(2 * KIB, pattern(size - 2 * KIB));
    const gaps = [
      [4 * KIB, 4 * KIB],
      [2 * PAGE - 8 * KIB, PAGE + 16 * KIB],
      [6 * PAGE + 512, 3 * PAGE],
    ];
    for (const [offset, length] of gaps) await memory.write(offset, new Uint8Array(length));
    const source = fakeDevice(size, {
      capabilities: { ...capabilities, exactStatus: false },
      read: (offset, target) => memory.read(offset, target),
      extents: async (offset, length) => {
        const list = new ExtentList(offset);
        if (offset < 2 * KIB) list.push(2 * KIB - offset, Status.zero);
        list.push(offset + length - list.end, Status.data);
        return [list];
      },
    });
    return { source, memory, size };
  }

  function limited(size: number, zeroAlignment: number, knownZero: boolean) {
    const limits: Limits = { ...fakeDevice(size).limits, zeroAlignment };
    const known = { ...UNKNOWN, knownZero, fastZero: false };
    return notingTarget(size, { limits, capabilities: known });
  }

  it.each([
    [512, 4 * KIB],
    [16 * KIB, 16 * KIB],
    [2 ** 20, 64 * KIB],
  ])(
    'are found in steps that suit a target which zeroes %d bytes as a whole',
    async (zeroAlignment, step) => {
      const { source, memory, size } = await withZeroes();
      const { device, written } = limited(size, zeroAlignment, true);
      await copy({ source, target: device, detectZeroes: 'on' });
      expect(await firstDifference(device, memory)).toBe(-1);
      const touched = new Set(
        written.flatMap(([offset, length]) => {
          const steps = [];
          for (let at = offset - (offset % step); at < offset + length; at += step) steps.push(at);
          return steps;
        }),
      );
      const content = new Uint8Array(size);
      await memory.read(0, content);
      for (let at = 0; at < size; at += step) {
        expect(touched.has(at)).toBe(content.subarray(at, at + step).some((byte) => byte !== 0));
      }
    },
  );

  it('are zeroed as asked, and only where that is worth a request', async () => {
    for (const detectZeroes of ['on', 'unmap', undefined] as const) {
      const { source, memory, size } = await withZeroes();
      const { device, memory: held, zeroed } = limited(size, 4 * KIB, false);
      await held.write(0, new Uint8Array(size).fill(255));
      const how = detectZeroes === undefined ? { unmap: false } : { detectZeroes };
      await copy({ source, target: device, ...how });
      expect(await firstDifference(device, memory)).toBe(-1);
      // The first one was known to be zero; the last one is cut where two requests meet.
      const inside = zeroed.filter(({ offset }) => offset > 0);
      expect(inside.length).toBe(3);
      expect(inside.every(({ length }) => length >= PAGE)).toBe(true);
      expect(inside.every(({ unmap }) => unmap === (detectZeroes === 'unmap'))).toBe(true);
    }
  });
});

it('a device knows no more that it is zero once it was written', async () => {
  const device = new Device(new MemoryDriver({ size: PAGE }));
  await device.write(0, pattern(1));
  expect(device.capabilities.knownZero).toBe(false);
});
