import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { Range } from '#dist/extent/index.js';
import { MirroredDisk, type MirrorSettings } from '#dist/graph/filters/mirrored-disk.js';
import { HeldDisk, microtasks } from '../../support/held-disk.js';

const G = 512;
const SIZE = 8 * G;

let disk: HeldDisk;
let target: HeldDisk;
let copy: MirroredDisk;

function setUp(settings: Partial<MirrorSettings> = {}): void {
  disk = new HeldDisk(new Uint8Array(SIZE).fill(3), 'disk');
  target = new HeldDisk(new Uint8Array(SIZE).fill(9), 'target');
  copy = new MirroredDisk(
    { disk: disk.device, target: target.device },
    {
      ...{ mode: 'write-blocking', granularity: G, targetIsZero: false },
      ...{ detectZeroes: 'off', limitMs: 1000 },
      ...settings,
    },
  );
  copy.begin();
  disk.isFree = true;
}

beforeEach(() => {
  vi.useFakeTimers();
  setUp();
});

afterEach(async () => {
  disk.isFree = true;
  target.isFree = true;
  for (const held of [...disk.held, ...target.held]) held.release();
  await copy.close();
  vi.useRealTimers();
});

function write(offset: number, length: number, value = 1): Promise<void> {
  const bytes = new Uint8Array(length).fill(value);
  return copy.change({
    offset,
    length,
    onDisk: () => disk.device.write(offset, bytes),
    onTarget: () => target.device.write(offset, bytes),
  });
}

function dirty(): Range[] {
  const bits = copy.copyDirty();
  const ranges = [...bits.ranges()];
  bits.free();
  return ranges;
}

/** Whether something has ended by now. */
async function hasEnded(work: Promise<unknown>): Promise<boolean> {
  let isOver = false;
  work.then(
    () => {
      isOver = true;
    },
    () => {
      isOver = true;
    },
  );
  await microtasks();
  return isOver;
}

describe('a write that is made on both sides', () => {
  test('waits for both, and is not dirty', async () => {
    const one = write(0, 10);
    expect(await hasEnded(one)).toBe(false);
    target.held[0].release();
    await one;
    expect(dirty()).toEqual([]);
    expect(target.bytes[9]).toBe(1);
  });

  test('gets no error of the target: it is dirty, and the job is told', async () => {
    let news = 0;
    copy.onNews = () => news++;
    const one = write(G, 10);
    await microtasks();
    target.held[0].fail(false);
    await one;
    expect(dirty()).toEqual([{ offset: G, length: G }]);
    expect(news).toBeGreaterThan(0);
    expect(copy.takeFailure()).toMatchObject({ code: 'ERR_DEVICE_IO' });
    expect(copy.takeFailure()).toBeUndefined();
  });

  test('waits for the target no longer than the limit, and keeps its range until it has really ended', async () => {
    const one = write(0, 10);
    await microtasks();
    vi.advanceTimersByTime(999);
    expect(await hasEnded(one)).toBe(false);
    vi.advanceTimersByTime(1);
    await one;
    expect(dirty()).toEqual([]);
    const piece = copy.copy(0, G);
    expect(await hasEnded(piece)).toBe(false);
    expect(target.held).toHaveLength(1);
    let isIdle = false;
    void copy.idle.then(() => {
      isIdle = true;
    });
    await microtasks();
    expect(isIdle).toBe(false);
    target.held[0].release();
    await microtasks();
    expect(dirty()).toEqual([{ offset: 0, length: G }]);
    target.held[0].release();
    await piece;
  });

  test('does not go to the target while an earlier one is late, and is dirty', async () => {
    const one = write(0, 10);
    await microtasks();
    vi.advanceTimersByTime(1000);
    await one;
    await write(4 * G, 10);
    expect(dirty()).toEqual([{ offset: 4 * G, length: G }]);
    expect(target.held).toHaveLength(1);
  });

  test('waits for a range that a piece holds no longer than the limit, and is dirty', async () => {
    const piece = copy.copy(0, G);
    await microtasks();
    const one = write(10, 10);
    expect(await hasEnded(one)).toBe(false);
    vi.advanceTimersByTime(1000);
    await one;
    expect(disk.bytes[10]).toBe(1);
    expect(dirty()).toEqual([{ offset: 0, length: G }]);
    target.held[0].release();
    await piece;
  });
});

describe('writes are not made on the target', () => {
  test('while the target fails, until it has recovered', async () => {
    const first = write(0, 10);
    await microtasks();
    target.held[0].fail(false);
    await first;
    await write(G, 10);
    expect(target.held).toEqual([]);
    copy.recover();
    const third = write(2 * G, 10);
    await microtasks();
    expect(target.held).toHaveLength(1);
    target.held[0].release();
    await third;
    expect(dirty()).toEqual([{ offset: 0, length: 2 * G }]);
  });

  test('while the job is stopped', async () => {
    copy.isStopped = () => true;
    await write(0, 10);
    expect(dirty()).toEqual([{ offset: 0, length: G }]);
  });

  test('by those that found the target working when they began to wait, and failing when they had their range', async () => {
    const piece = copy.copy(0, G).catch(() => {});
    await microtasks();
    const one = write(0, 10);
    await microtasks();
    target.held[0].fail(false);
    await piece;
    await one;
    expect(target.held).toEqual([]);
    expect(dirty()).toEqual([{ offset: 0, length: G }]);
  });
});

describe('a range that reads as zero', () => {
  test('is zeroed, but for what was written on both sides since', async () => {
    const one = write(G + 5, 10);
    await microtasks();
    target.held[0].release();
    await one;
    target.isFree = true;
    const done = await copy.zero(0, 4 * G);
    expect(done).toEqual({
      movedBytes: 0,
      zeroedBytes: 3 * G,
      left: [{ offset: G, length: G }],
    });
  });

  test('is left as it is where the target was zero, in the first round, and where nobody has written', async () => {
    setUp({ targetIsZero: true, detectZeroes: 'on' });
    disk.bytes.fill(0);
    target.isFree = true;
    expect((await copy.zero(0, 2 * G)).zeroedBytes).toBe(0);
    expect(await copy.copy(0, G)).toEqual({ movedBytes: 0, zeroedBytes: 0 });
    await write(0, 10, 0);
    expect(await copy.copy(0, G)).toEqual({ movedBytes: 0, zeroedBytes: G });
    copy.takeDirty().free();
    expect((await copy.zero(2 * G, G)).zeroedBytes).toBe(G);
    expect(await copy.copy(3 * G, G)).toEqual({ movedBytes: 0, zeroedBytes: G });
  });

  test('is not known to be zero in the target any more when what lies below has become another disk', async () => {
    setUp({ targetIsZero: true });
    target.isFree = true;
    copy.setAllDirty();
    expect(dirty()).toEqual([{ offset: 0, length: SIZE }]);
    expect((await copy.zero(0, G)).zeroedBytes).toBe(G);
  });
});

test('what cannot be read is read again, zeroed in the target while nobody writes it, and stays dirty', async () => {
  target.isFree = true;
  disk.isFree = false;
  const taken = copy.copyReadable(0, 2 * G);
  await microtasks();
  disk.held[0].fail(false);
  expect(await taken).toEqual({
    movedBytes: 0,
    zeroedBytes: 2 * G,
    unread: [{ offset: 0, length: 2 * G }],
  });
  expect(dirty()).toEqual([{ offset: 0, length: 2 * G }]);
  expect(target.bytes.subarray(0, 2 * G)).toEqual(new Uint8Array(2 * G));
  // A write between the question and the zeroes would be lost in the target.
  const again = copy.copyReadable(0, G);
  await microtasks();
  const one = write(0, 10);
  expect(await hasEnded(one)).toBe(false);
  expect(disk.held.map(({ what }) => what)).toEqual(['read']);
  disk.held[0].release();
  await again;
  await microtasks();
  disk.held[0].release();
  await one;
  expect(target.bytes.subarray(0, 12)).toEqual(disk.bytes.subarray(0, 12));
});

test('a write that nobody has the memory to note goes on, and the mirror is broken', async () => {
  setUp({ mode: 'background' });
  vi.spyOn(Bitmap.prototype, 'set').mockImplementation(() => {
    throw new Error('full');
  });
  await write(0, 10);
  vi.restoreAllMocks();
  expect(disk.bytes[0]).toBe(1);
  expect(copy.broken).toMatchObject({ code: 'ERR_ARENA_FULL' });
});
