import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { Control } from '#dist/copy/control/control.js';
import { FirstDifference } from '#dist/copy/control/first-difference.js';
import { compare } from '#dist/copy/index.js';
import { compareShare } from '#dist/copy/move/comparer.js';
import { choosePace } from '#dist/copy/run/comparison.js';
import { checkTransfer } from '#dist/copy/run/transfer.js';
import { Arena } from '#dist/wasm/index.js';
import { fakeDevice, pattern } from '../../../support/fake-device.js';
import fc from '../../../support/fast-check.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const folder = temporaryFolder();

interface Piece {
  readonly at: number;
  readonly length: number;
  readonly seed: number;
}

const pieces = fc.array(
  fc.record({
    at: fc.integer({ min: 0, max: 8 * MIB }),
    length: fc.integer({ min: 1, max: 700 * KIB }),
    // 0 stands for zeroes that are written.
    seed: fc.integer({ min: 0, max: 2 }),
  }),
  { maxLength: 8 },
);

function makeFile(name: string, size: number, content: readonly Piece[]): string {
  const path = join(folder, name);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  for (const { at, length, seed } of content) {
    const room = Math.min(length, size - at);
    if (room > 0) writeSync(fd, seed === 0 ? Buffer.alloc(room) : pattern(room, seed), 0, room, at);
  }
  closeSync(fd);
  return path;
}

/** Where two files first differ, by cmp; its offsets count from 1. */
function byCmp(a: string, b: string): number | undefined {
  const { status, stdout } = spawnSync('cmp', [a, b], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  });
  if (status === 0) return undefined;
  return Number(/(?:char|byte) (\d+)/.exec(stdout)?.[1]) - 1;
}

describe('compare', () => {
  it('finds the first difference that cmp finds, in any number of threads', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 * MIB }),
        pieces,
        pieces,
        fc.boolean(),
        fc.constantFrom(0, 0, 2),
        fc.constantFrom(undefined, 1, 5),
        async (size, common, more, isSame, threads, requests) => {
          const a = makeFile('a', size, common);
          const b = makeFile('b', size, isSame ? common : [...common, ...more]);
          const expected = byCmp(a, b);
          const options = { a, b, threads, requestSize: 64 * KIB, ...(requests && { requests }) };
          const report = await compare(options);
          expect(report.offset).toBe(expected);
          expect(report).toMatchObject({ equal: expected === undefined, threads });
        },
      ),
      { numRuns: 15 },
    );
  });

  it('does not read on behind a difference', async () => {
    const [a, b] = [fakeDevice(32 * MIB), fakeDevice(32 * MIB)];
    for (const device of [a, b]) await device.write(0, Buffer.alloc(32 * MIB, 'full'));
    await b.write(5 * MIB, Uint8Array.of(0));
    const report = await compare({ a, b });
    expect(report.offset).toBe(5 * MIB);
    expect(report.comparedBytes).toBeLessThan(24 * MIB);
  });

  it('reads one side alone where the other is known to be zero', async () => {
    const a = fakeDevice(MIB);
    const b = fakeDevice(MIB, {
      read: async () => {
        throw new Error('there is nothing to read');
      },
    });
    await a.write(100 * KIB, new Uint8Array(100 * KIB));
    expect(await compare({ a, b })).toMatchObject({ equal: true, comparedBytes: 3 * 64 * KIB });
    await a.write(131_073, Uint8Array.of(1));
    expect(await compare({ a, b })).toMatchObject({ equal: false, offset: 131_073 });
  });

  it('takes the rest of the longer one for different where it is not zero', async () => {
    const a = makeFile('short', MIB + 1, []);
    const b = makeFile('long', 3 * MIB, [{ at: 2 * MIB, length: 5, seed: 0 }]);
    expect(await compare({ a, b, threads: 2 })).toMatchObject({ equal: true, size: 3 * MIB });
    expect(await compare({ a, b, strict: true })).toMatchObject({ equal: false });
    const other = makeFile('other', 3 * MIB, [{ at: MIB + 1, length: 1, seed: 1 }]);
    expect(await compare({ a, b: other, threads: 2 })).toMatchObject({ offset: MIB + 1 });
  });

  it('takes what lies behind the end of the shorter one for zero, in the middle of a piece', async () => {
    const [a, b] = [fakeDevice(100 * KIB), fakeDevice(256 * KIB)];
    for (const device of [a, b]) await device.write(0, pattern(100 * KIB));
    await b.write(100 * KIB, new Uint8Array(28 * KIB));
    const options = { a, b, requests: 1, requestSize: 64 * KIB };
    expect(await compare(options)).toMatchObject({ equal: true });
    await b.write(100 * KIB + 3, Uint8Array.of(1));
    expect(await compare(options)).toMatchObject({ offset: 100 * KIB + 3 });
  });

  it('looks on before a difference that another thread has found', async () => {
    const arena = Arena.default;
    const whole = new Bitmap({ size: MIB, granularity: 64 * KIB });
    whole.setAll();
    const [a, b] = [fakeDevice(MIB), fakeDevice(MIB)];
    await b.write(300 * KIB, Uint8Array.of(1));
    const first = new FirstDifference();
    first.note(900 * KIB);
    const control = Control.create(1);
    await compareShare({
      a: { device: a, data: whole },
      b: { device: b, data: whole },
      pace: { requests: 1, requestSize: 64 * KIB, windowSize: 128 * KIB },
      plan: whole.snapshot(),
      first,
      shared: {
        arena,
        control,
        counters: control.row(0),
        signal: new AbortController().signal,
      },
    });
    expect(first.offset).toBe(300 * KIB);
  });

  it('tells how far it has come, and fails as a read fails', async () => {
    const moments: number[] = [];
    const a = makeFile('full', 4 * MIB, [{ at: 0, length: 4 * MIB, seed: 1 }]);
    for await (const { doneBytes } of compare({ a, b: a })) moments.push(doneBytes);
    expect(moments.at(-1)).toBe(4 * MIB);
    const broken = fakeDevice(4 * MIB, {
      extents: undefined,
      read: async () => {
        throw new Error('no such luck');
      },
    });
    await expect(compare({ a, b: broken })).rejects.toThrow('no such luck');
    const signal = AbortSignal.abort();
    await expect(compare({ a, b: a, signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('has room in an arena for as many threads and requests as are allowed', () => {
    const side = { device: fakeDevice(MIB), data: new Bitmap({ size: MIB, granularity: 512 }) };
    for (const [threads, given] of [
      [0, { requests: 1024 }],
      [2, { requests: 1024 }],
      [4, { requests: 512 }],
      [256, {}],
      [2, { requests: 16, requestSize: 32 * MIB }],
    ] as const) {
      checkTransfer({ threads, ...given });
      const pace = choosePace({ a: side, b: side, transfer: given }, threads, 2 ** 40);
      const bytes = 2 * Math.max(1, threads) * pace.requests * pace.requestSize;
      expect(bytes).toBeLessThanOrEqual(2 ** 31);
    }
    side.data.free();
  });

  it('is paused between pieces, and compares the rest when it is resumed', async () => {
    const a = fakeDevice(MIB, { extents: undefined });
    let reads = 0;
    const b = fakeDevice(MIB, {
      extents: undefined,
      read: async (_offset, target) => {
        target.fill(0);
        // By the third piece, so that some are left.
        if (++reads === 3) job.pause();
      },
    });
    const job = compare({ a, b, threads: 0, requests: 1, requestSize: 64 * KIB });
    await expect.poll(() => job.state).toBe('paused');
    await expect.poll(() => job.progress().doneBytes).toBe(3 * 64 * KIB);
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    expect(reads).toBe(3);
    job.resume();
    expect(await job).toMatchObject({ equal: true, comparedBytes: MIB });
  });

  it('keeps to a rate, in pieces that suit it', async () => {
    const a = fakeDevice(MIB, { extents: undefined });
    const lengths = new Set<number>();
    const b = fakeDevice(MIB, {
      extents: undefined,
      read: async (_offset, target) => void lengths.add(target.fill(0).length),
    });
    const job = compare({ a, b, threads: 0, requests: 1, rate: 1 });
    // The first piece has nobody before it.
    await expect.poll(() => job.progress().doneBytes).toBe(4096);
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    expect([...lengths]).toEqual([4096]);
    job.setRate(undefined);
    expect(await job).toMatchObject({ equal: true });
  });

  it.each(['stop', 'abort'])('ends at once with %s: it leaves nothing unfinished', async (how) => {
    const endless = fakeDevice(MIB, {
      extents: undefined,
      read: (_offset, _target, signal) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(new Error('given up')));
        }),
    });
    const abort = new AbortController();
    const job = compare({ a: endless, b: fakeDevice(MIB), signal: abort.signal });
    await expect.poll(() => job.progress().totalBytes).toBe(MIB);
    if (how === 'stop') job.stop();
    else abort.abort();
    const code = how === 'stop' ? 'ERR_JOB_STOPPED' : 'ERR_ABORTED';
    await expect(job).rejects.toMatchObject({ code });
    expect(job.state).toBe('stopped');
  });
});
