/** An increment of many short ranges: which of them the source is asked about before they are read. */
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { type Driver, MemoryDriver } from '#dist/block/index.js';
import { type CopyOptions, copy, plan } from '#dist/copy/index.js';
import { fakeDevice, firstDifference, pattern } from '../../support/fake-device.js';

const KIB = 1024;
const BLOCK = 64 * KIB;
/** Further apart than what one query is made for. */
const STEP = 64 * 1024 * KIB;
const BLOCKS = 8;
const SIZE = BLOCKS * STEP;
const { capabilities } = new MemoryDriver({ size: 1 });

/** A source of dirty blocks, of which the even ones are zero, and the target as it was before. */
async function increment(length = BLOCK, change: Partial<Driver> = {}) {
  const memory = new MemoryDriver({ size: SIZE });
  const asked: number[] = [];
  const read: number[] = [];
  const source = fakeDevice(SIZE, {
    capabilities: { ...capabilities, exactStatus: false },
    read: async (offset, target) => {
      read.push(offset);
      await memory.read(offset, target);
    },
    extents: async (offset, askedLength, contexts) => {
      asked.push(offset);
      return memory.extents(offset, askedLength, contexts);
    },
    ...change,
  });
  const target = fakeDevice(SIZE, {
    capabilities: { ...capabilities, knownZero: false, contexts: [] },
  });
  const bitmap = new Bitmap({ size: SIZE, granularity: BLOCK });
  for (let block = 0; block < BLOCKS; block++) {
    const at = block * STEP;
    bitmap.set(at, length);
    await target.write(at, pattern(length, 99));
    if (block % 2 === 1) await memory.write(at, pattern(length, block));
  }
  const run = (options: Partial<CopyOptions> = {}) =>
    copy({ source, target, bitmap, threads: 0, ...options });
  return { source, target, bitmap, asked, read, run };
}

describe('dirty ranges of no more than 64 KiB', () => {
  it('are read unasked, and zeroed where they read as zero', async () => {
    const { source, target, asked, run } = await increment();
    const report = await run();
    expect(asked).toEqual([]);
    expect(report.movedBytes).toBe((BLOCKS / 2) * BLOCK);
    expect(report.zeroedBytes).toBe((BLOCKS / 2) * BLOCK);
    expect(await firstDifference(source, target)).toBe(-1);
  });

  it('are asked about where nobody looks for zeroes in what is read', async () => {
    const { source, target, asked, read, run } = await increment();
    const report = await run({ detectZeroes: 'off' });
    expect(asked.length).toBe(BLOCKS);
    expect(read.length).toBe(BLOCKS / 2);
    expect(report.zeroedBytes).toBe((BLOCKS / 2) * BLOCK);
    expect(await firstDifference(source, target)).toBe(-1);
  });

  it('are asked about where the status is exact, which is cheap there', async () => {
    const { source, target, asked, run } = await increment(BLOCK, {
      capabilities: { ...capabilities, exactStatus: true },
    });
    await run();
    expect(asked.length).toBe(BLOCKS);
    expect(await firstDifference(source, target)).toBe(-1);
  });

  it('are asked about by a plan, which says how much is zero', async () => {
    const { source, bitmap, asked } = await increment();
    const { totals } = await plan({ source, bitmap });
    expect(asked.length).toBe(BLOCKS);
    expect(totals.holeBytes + totals.zeroBytes).toBe((BLOCKS / 2) * BLOCK);
  });
});

it('dirty ranges of more than 64 KiB are asked about, and not read where they are zero', async () => {
  const { source, target, asked, read, run } = await increment(2 * BLOCK);
  await run();
  expect(asked.length).toBe(BLOCKS);
  expect(read.length).toBe(BLOCKS / 2);
  expect(await firstDifference(source, target)).toBe(-1);
});

it('a short range of dirty and clean granules is read where it is dirty alone', async () => {
  const source = fakeDevice(SIZE, { capabilities: { ...capabilities, exactStatus: false } });
  const target = fakeDevice(SIZE);
  const bitmap = new Bitmap({ size: SIZE, granularity: 4 * KIB });
  await source.write(0, pattern(12 * KIB));
  for (const at of [0, 8 * KIB]) bitmap.set(at, 4 * KIB);
  const { movedBytes } = await copy({ source, target, bitmap, threads: 0 });
  expect(movedBytes).toBe(8 * KIB);
});
