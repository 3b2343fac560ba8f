import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { copy } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { Random } from '#dist/testing/index.js';
import { fakeDevice, firstDifference, pattern } from '../../../support/fake-device.js';
import fc from '../../../support/fast-check.js';
import { firstSeed } from '../../../support/long-run.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const PAGE = 64 * KIB;
const PAGES = 40;
const SIZE = PAGES * PAGE - 300;
const { capabilities } = fakeDevice(1);
const folder = temporaryFolder();
const random = new Random(firstSeed());

/** A device whose answers come after a while, in any order, and a record of what is changed in it. */
function tape(isZero: boolean, badAt = -1) {
  const memory = fakeDevice(SIZE);
  const changes: { offset: number; length: number }[] = [];
  const change = async (offset: number, length: number, done: () => Promise<void>) => {
    changes.push({ offset, length });
    await sleep(random.below(4));
    if (offset <= badAt && badAt < offset + length) {
      throw new LacunaError('ERR_DEVICE_IO', 'torn', { errno: 'EIO' });
    }
    await done();
  };
  const device = fakeDevice(SIZE, {
    capabilities: { ...capabilities, knownZero: isZero, contexts: [] },
    read: (offset, target) => memory.read(offset, target),
    write: (offset, bytes) =>
      change(offset, bytes.length, () => memory.write(offset, Uint8Array.from(bytes))),
    zero: (offset, length) => change(offset, length, () => memory.zero(offset, length)),
  });
  return { device, memory, changes };
}

async function makeSource(pages: readonly number[]) {
  const memory = fakeDevice(SIZE);
  for (const page of pages) {
    await memory.write(page * PAGE, pattern(Math.min(PAGE, SIZE - page * PAGE), page));
  }
  return fakeDevice(SIZE, {
    read: async (offset, target) => {
      await sleep(random.below(4));
      await memory.read(offset, target);
    },
    extents: async (offset, length) => memory.someExtents(offset, length),
  });
}

const pages = fc.uniqueArray(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: PAGES });

function expectAscending(changes: readonly { offset: number; length: number }[]): void {
  for (const [i, { offset }] of changes.entries()) {
    const before = changes[i - 1] ?? { offset: 0, length: 0 };
    expect(offset).toBeGreaterThanOrEqual(before.offset + before.length);
  }
}

describe('copy in sequence', () => {
  it('writes data and zeroes in the order of offsets, one after the other', async () => {
    await fc.assert(
      fc.asyncProperty(
        pages,
        fc.boolean(),
        fc.constantFrom(1, 8),
        async (where, isZero, requests) => {
          const source = await makeSource(where);
          const { device: target, memory, changes } = tape(isZero);
          if (!isZero) await memory.write(0, pattern(SIZE, 99));
          await copy({ source, target, sequential: true, requests, requestSize: PAGE });
          expectAscending(changes);
          expect(await firstDifference(source, memory)).toBe(-1);
          const changed = changes.reduce((sum, { length }) => sum + length, 0);
          if (!isZero) expect(changed).toBe(SIZE);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('writes an increment in order, and only that', async () => {
    const source = await makeSource([1, 3, 5, 7, 20]);
    const { device: target, memory, changes } = tape(false);
    await memory.write(0, pattern(SIZE, 99));
    const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
    for (const page of [2, 3, 4, 7, 30]) bitmap.set(page * PAGE, 1);
    await copy({ source, target, bitmap, sequential: true });
    expectAscending(changes);
    expect(new Set(changes.map(({ offset }) => Math.floor(offset / PAGE)))).toEqual(
      new Set([2, 3, 4, 7, 30]),
    );
  });

  it('writes nothing behind a piece that failed', async () => {
    const source = await makeSource([...Array(PAGES).keys()]);
    for (const bad of [0, 7, 20]) {
      const { device: target, changes } = tape(true, bad * PAGE);
      const options = { sequential: true, requests: 8, requestSize: PAGE };
      await expect(copy({ source, target, ...options })).rejects.toThrow('torn');
      expect(changes.map(({ offset }) => offset / PAGE)).toEqual([...Array(bad + 1).keys()]);
    }
  });

  it('goes on in order after a failure that was tried again', async () => {
    const source = await makeSource([...Array(PAGES).keys()]);
    const { device, memory, changes } = tape(true);
    let failures = 2;
    const target = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      write: async (offset, bytes) => {
        if (offset === 5 * PAGE && failures-- > 0) {
          throw new LacunaError('ERR_DEVICE_IO', 'busy', { errno: 'EIO' });
        }
        await device.write(offset, bytes);
      },
    });
    const retry = { attempts: 3, backoffMs: 1 };
    const options = { sequential: true, onWriteError: 'retry', retry, requestSize: PAGE } as const;
    await copy({ source, target, requests: 8, ...options });
    expectAscending(changes);
    expect(await firstDifference(source, memory)).toBe(-1);
  });
});

describe('copy in sequence from a source with holes', () => {
  it('reads nothing before and behind the data of a request, whatever the target holds', async () => {
    const where = [3, 5, 6, 30];
    const memory = await makeSource(where);
    const reads: { offset: number; length: number }[] = [];
    const source = fakeDevice(SIZE, {
      read: async (offset, target) => {
        reads.push({ offset, length: target.length });
        await memory.read(offset, target);
      },
      extents: async (offset, length) => memory.someExtents(offset, length),
    });
    const { device: target, memory: written, changes } = tape(false);
    await written.write(0, pattern(SIZE, 99));
    await copy({ source, target, sequential: true, requestSize: 8 * PAGE });
    expectAscending(changes);
    expect(await firstDifference(memory, written)).toBe(-1);
    expect(reads.sort((a, b) => a.offset - b.offset)).toEqual([
      { offset: 3 * PAGE, length: 4 * PAGE },
      { offset: 30 * PAGE, length: PAGE },
    ]);
  });

  it.each([0, 1])('lets what it does not read pass at any rate (threads: %i)', async (threads) => {
    // All of it would take half an hour, what is read is let through at once.
    const size = 8 * MIB;
    const [source, target] = [join(folder, `holes-${threads}.raw`), join(folder, 'target.raw')];
    const content = Buffer.alloc(size);
    content.set(pattern(4 * KIB), size - 4 * KIB);
    const file = openSync(source, 'w');
    writeSync(file, content, size - 4 * KIB, 4 * KIB, size - 4 * KIB);
    closeSync(file);
    writeFileSync(target, pattern(size, 99));
    const bitmap = new Bitmap({ size, granularity: PAGE });
    bitmap.setAll();
    const options = { sequential: true, threads, rate: 4 * KIB };
    const { zeroedBytes } = await copy({ source, target, bitmap, ...options });
    expect(Buffer.compare(readFileSync(target), content)).toBe(0);
    expect(zeroedBytes).toBe(size - PAGE);
    bitmap.free();
  });
});
