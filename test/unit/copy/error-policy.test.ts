import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { Device } from '#dist/block/index.js';
import { type CopyOptions, copy, type ErrorPolicy } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { contentOf, fakeDevice, firstDifference, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const PAGE = 4096;
const PAGES = 64;
const SIZE = PAGES * PAGE - 1000;
const { capabilities } = fakeDevice(1);

const turn = () => new Promise((resolve) => setImmediate(resolve));

function failure(errno = 'EIO'): LacunaError {
  return new LacunaError('ERR_DEVICE_IO', `bad sector (${errno})`, { errno });
}

/** The error that a request meets when it touches one of these pages. */
function checkPages(bad: ReadonlySet<number>, offset: number, length: number, errno?: string) {
  const last = Math.floor((offset + length - 1) / PAGE);
  for (let page = Math.floor(offset / PAGE); page <= last; page++) {
    if (bad.has(page)) throw failure(errno);
  }
}

interface Faults {
  reads?: ReadonlySet<number>;
  writes?: ReadonlySet<number>;
  zeroes?: ReadonlySet<number>;
  errno?: string;
}

/** A source full of data, a target full of something else, and the memory below the target. */
async function devices({ reads, writes, zeroes, errno }: Faults) {
  const none = new Set<number>();
  const content = fakeDevice(SIZE);
  await content.write(0, pattern(SIZE));
  const memory = fakeDevice(SIZE);
  await memory.write(0, pattern(SIZE, 77));
  const source = fakeDevice(SIZE, {
    capabilities: { ...capabilities, contexts: [] },
    read: async (offset, target) => {
      await turn();
      checkPages(reads ?? none, offset, target.length, errno);
      await content.read(offset, target);
    },
  });
  const target = fakeDevice(SIZE, {
    capabilities: { ...capabilities, contexts: [], knownZero: false, fastZero: false },
    read: (offset, bytes) => memory.read(offset, bytes),
    write: async (offset, bytes) => {
      await turn();
      checkPages(writes ?? none, offset, bytes.length, errno);
      await memory.write(offset, bytes);
    },
    zero: async (offset, length) => {
      await turn();
      checkPages(zeroes ?? none, offset, length, errno);
      await memory.zero(offset, length);
    },
  });
  return { source, target, content, memory };
}

const lengthOf = (page: number) => Math.min(PAGE, SIZE - page * PAGE);

async function pageOf(device: Device, page: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthOf(page));
  await device.read(page * PAGE, bytes);
  return bytes;
}

const somePages = fc
  .uniqueArray(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: 12 })
  .map((pages) => new Set(pages));

describe('a failure that may be ignored', () => {
  it('leaves out the bad pages alone, zeroes what was unreadable, and lists all of it', async () => {
    await fc.assert(
      fc.asyncProperty(somePages, somePages, async (reads, writes) => {
        const { source, target, content, memory } = await devices({ reads, writes });
        const options = { onReadError: 'ignore', onWriteError: 'ignore' } as const;
        const report = await copy({ source, target, ...options });
        const listed = { source: new Set<number>(), target: new Set<number>() };
        for (const { side, offset, length, error } of report.errors) {
          expect(error).toMatchObject({ code: 'ERR_DEVICE_IO', errno: 'EIO' });
          expect(offset % PAGE).toBe(0);
          for (let at = offset; at < offset + length; at += PAGE) listed[side].add(at / PAGE);
        }
        expect(listed.source).toEqual(reads);
        // What cannot be read is not written, but zeroed.
        expect(listed.target).toEqual(new Set([...writes].filter((page) => !reads.has(page))));
        for (let page = 0; page < PAGES; page++) {
          if (listed.target.has(page)) continue;
          const want = reads.has(page) ? Buffer.alloc(lengthOf(page)) : await pageOf(content, page);
          expect((await pageOf(memory, page)).equals(want), `page ${page}`).toBe(true);
        }
        const pages = [...new Set([...listed.source, ...listed.target])];
        const bytes = pages.reduce((sum, page) => sum + lengthOf(page), 0);
        expect(report.leftOutBytes).toBe(bytes);
        expect(report.movedBytes).toBe(SIZE - bytes);
        expect(report.moreErrors).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  it('counts as one of the target, too, where the target cannot zero what was unreadable', async () => {
    const bad = new Set([3]);
    const { source, target } = await devices({ reads: bad, zeroes: bad });
    const options = { source, target, onReadError: 'ignore' } as const;
    await expect(copy(options)).rejects.toMatchObject({ errno: 'EIO' });
    const { errors } = await copy({ ...options, onWriteError: 'ignore' });
    expect(errors.map(({ side, offset, length }) => [side, offset, length])).toEqual([
      ['source', 3 * PAGE, PAGE],
      ['target', 3 * PAGE, PAGE],
    ]);
  });

  it('leaves out what cannot be zeroed, and nothing else', async () => {
    const zeroes = new Set([0, 5, 6, PAGES - 1]);
    const { target, memory } = await devices({ zeroes });
    const source = fakeDevice(SIZE);
    const report = await copy({ source, target, onWriteError: 'ignore' });
    expect(report.errors.map(({ offset }) => offset / PAGE)).toEqual([0, 5, PAGES - 1]);
    for (let page = 0; page < PAGES; page++) {
      const isZero = (await pageOf(memory, page)).every((byte) => byte === 0);
      expect(isZero, `page ${page}`).toBe(!zeroes.has(page));
    }
  });

  it('of a full target is not looked for sector by sector', async () => {
    const writes = new Set(Array.from({ length: PAGES }, (_, page) => page));
    const { source, target } = await devices({ writes, errno: 'ENOSPC' });
    const report = await copy({ source, target, onWriteError: 'ignore' });
    expect(report).toMatchObject({ leftOutBytes: SIZE, movedBytes: 0, retries: 0 });
    expect(report.errors).toHaveLength(1);
  });

  it('is never that of a device that is gone', async () => {
    const gone = new LacunaError('ERR_NBD_DISCONNECTED', 'gone', { retryable: true });
    const { target } = await devices({});
    const source = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: () => Promise.reject(gone),
    });
    const job = copy({ source, target, onReadError: 'ignore', onWriteError: 'ignore' });
    await expect(job).rejects.toBe(gone);
  });

  it('is never that of a flush', async () => {
    const { source, target } = await devices({});
    target.flush = () => Promise.reject(failure());
    const job = copy({ source, target, onWriteError: 'ignore' });
    await expect(job).rejects.toMatchObject({ errno: 'EIO' });
  });
});

/** Fails so many requests of each page, and then no more. */
function failingAtFirst(times: number): { check(offset: number): void; failures(): number } {
  const left = new Map<number, number>();
  let failures = 0;
  return {
    check: (offset) => {
      const now = left.get(offset) ?? times;
      if (now === 0) return;
      left.set(offset, now - 1);
      failures++;
      throw failure();
    },
    failures: () => failures,
  };
}

describe('a failure that passes', () => {
  it.each<[string, Partial<CopyOptions>]>([
    [
      'retry',
      { onReadError: 'retry', onWriteError: 'retry', retry: { attempts: 8, backoffMs: 0 } },
    ],
    ['ignore', ignoring(8)],
    ['stop', { onReadError: 'stop', onWriteError: 'stop', retry: { attempts: 8, backoffMs: 0 } }],
  ])('is outlived with attempts, with the policy %s', async (_policy, options) => {
    const { content, memory } = await devices({});
    const [reads, writes] = [failingAtFirst(1), failingAtFirst(1)];
    const source = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: async (offset, bytes) => {
        await turn();
        reads.check(offset);
        await content.read(offset, bytes);
      },
    });
    const target = fakeDevice(SIZE, {
      write: async (offset, bytes) => {
        await turn();
        writes.check(offset);
        await memory.write(offset, bytes);
      },
    });
    const report = await copy({ source, target, requestSize: 8 * PAGE, ...options });
    expect(await firstDifference(content, memory)).toBe(-1);
    expect(report.errors).toEqual([]);
    expect(report.retries).toBeGreaterThanOrEqual(PAGES / 8);
    expect(reads.failures()).toBeGreaterThan(0);
    expect(writes.failures()).toBeGreaterThan(0);
  });

  it('fails the copy when it does not pass in time', async () => {
    const reads = new Set([7]);
    const { source, target } = await devices({ reads });
    const retry = { attempts: 2, backoffMs: 0 };
    const job = copy({ source, target, onReadError: 'retry', retry });
    await expect(job).rejects.toMatchObject({ name: 'LacunaError', errno: 'EIO' });
    expect(job.progress().retries).toBeGreaterThanOrEqual(2);
  });

  it('is hit by requests that are too large for the server, until they are small enough', async () => {
    const { content, target, memory } = await devices({});
    const source = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: async (offset, bytes) => {
        if (bytes.length > 2 * PAGE) throw failure('EINVAL');
        await content.read(offset, bytes);
      },
    });
    const retry = { backoffMs: 0 };
    await copy({ source, target, requestSize: 16 * PAGE, onReadError: 'retry', retry });
    expect(await firstDifference(content, memory)).toBe(-1);
  });
});

it.each(['retry', 'ignore'] as const)(
  'a last byte alone can be tried again: %s',
  async (policy) => {
    const size = PAGE + 1;
    const source = fakeDevice(size);
    await source.write(0, pattern(size));
    const memory = fakeDevice(size);
    let failures = 3;
    const target = fakeDevice(size, {
      read: (offset, bytes) => memory.read(offset, bytes),
      write: async (offset, bytes) => {
        await turn();
        if (offset === PAGE && failures-- > 0) throw failure();
        await memory.write(offset, bytes);
      },
    });
    const retry = { attempts: 5, backoffMs: 0 };
    await copy({ source, target, requestSize: PAGE, onWriteError: policy, retry });
    expect(await firstDifference(source, memory)).toBe(-1);
  },
);

function ignoring(attempts: number): Partial<CopyOptions> {
  return { onReadError: 'ignore', onWriteError: 'ignore', retry: { attempts, backoffMs: 0 } };
}

describe('a failure that stops the copy', () => {
  it('keeps what remains, waits, and tries again when it is resumed', async () => {
    const [reads, writes] = [new Set([9, 40]), new Set([20])];
    const { source, target, content, memory } = await devices({ reads, writes });
    const job = copy({
      source,
      target,
      requestSize: 2 * PAGE,
      onReadError: 'stop',
      onWriteError: 'stop',
    });
    const stops: string[] = [];
    job.on('paused', (error) => {
      stops.push(error!.message);
      const { state, error: shown } = job.progress();
      expect(state).toBe('paused');
      expect(shown).toBe(error);
      // Somebody mends one thing at a time; the first time nobody does.
      if (stops.length === 2) reads.delete(9);
      if (stops.length === 3) writes.clear();
      if (stops.length === 4) reads.clear();
      setTimeout(() => job.resume(), 5);
    });
    const report = await job;
    expect(stops.length).toBeGreaterThanOrEqual(4);
    expect(await firstDifference(content, memory)).toBe(-1);
    // What was done and flushed before a stop was not done again.
    expect(report.movedBytes).toBe(SIZE);
  });

  it('loses nothing of what waits for its turn by the rate', async () => {
    const reads = new Set([9]);
    const { source, target, content, memory } = await devices({ reads });
    const limits = { rate: 2 * SIZE, requestSize: PAGE, requests: 8 };
    const job = copy({ source, target, ...limits, onReadError: 'stop' });
    job.on('paused', () => {
      reads.clear();
      job.resume();
    });
    const report = await job;
    expect(report.movedBytes).toBe(SIZE);
    expect(await firstDifference(content, memory)).toBe(-1);
  });

  it.each(['stop', 'abort'])('can be ended with %s', async (how) => {
    const { source, target } = await devices({ reads: new Set([9]) });
    const abort = new AbortController();
    const job = copy({ source, target, onReadError: 'stop', signal: abort.signal });
    await new Promise<void>((resolve) => job.on('paused', () => resolve()));
    if (how === 'stop') job.stop();
    else abort.abort();
    const cause = how === 'stop' ? { errno: 'EIO' } : {};
    const code = how === 'stop' ? 'ERR_JOB_STOPPED' : 'ERR_ABORTED';
    await expect(job).rejects.toMatchObject({ code, cause });
  });

  it('of zeroing is waited for too', async () => {
    const zeroes = new Set([9]);
    const { target, memory } = await devices({ zeroes });
    const job = copy({ source: fakeDevice(SIZE), target, onWriteError: 'stop' });
    job.on('paused', () => {
      zeroes.clear();
      job.resume();
    });
    await job;
    expect((await contentOf(memory)).every((byte) => byte === 0)).toBe(true);
  });
});

describe('writes that were answered but never flushed', () => {
  /** A target whose server crashes at its first flush, and so forgets what was written since the last. */
  function forgetful(memory: Device, crash: 'flush fails' | 'connection is lost') {
    let cache: [number, Uint8Array][] = [];
    let crashed = false;
    return fakeDevice(SIZE, {
      capabilities: { ...capabilities, knownZero: false, fastZero: true, contexts: [] },
      write: async (offset, bytes) => {
        await turn();
        cache.push([offset, bytes.slice()]);
      },
      zero: async (offset, length) => {
        cache.push([offset, new Uint8Array(length)]);
      },
      flush: async () => {
        if (!crashed) {
          crashed = true;
          cache = [];
          if (crash === 'flush fails') throw failure();
          throw new LacunaError('ERR_NBD_UNFLUSHED', 'lost', { retryable: false });
        }
        for (const [offset, bytes] of cache) await memory.write(offset, bytes);
        cache = [];
      },
    });
  }

  for (const crash of ['flush fails', 'connection is lost'] as const) {
    it.each<ErrorPolicy>(['report', 'retry', 'stop', 'ignore'])(
      `are written again or fail the copy, when the ${crash} (%s)`,
      async (onWriteError) => {
        const memory = fakeDevice(SIZE);
        await memory.write(0, pattern(SIZE, 50));
        const source = fakeDevice(SIZE);
        await source.write(3 * PAGE, pattern(20 * PAGE));
        const target = forgetful(memory, crash);
        const job = copy({ source, target, onWriteError, retry: { backoffMs: 0 } });
        job.on('paused', () => job.resume());
        if (onWriteError === 'report' || onWriteError === 'ignore') {
          await expect(job).rejects.toBeInstanceOf(LacunaError);
          return;
        }
        await job;
        expect(await firstDifference(source, memory)).toBe(-1);
      },
    );
  }

  it('take what was left out before with them, also out of the report, until it is tried again', async () => {
    const [reads, writes] = [new Set([9]), new Set([40])];
    const { source, target, memory } = await devices({ reads, writes });
    let flushes = 0;
    const flush = target.flush.bind(target);
    target.flush = async (options) => {
      await flush(options);
      // The first makes the first round durable, so that only the rest of the copy is in doubt.
      if (++flushes === 2) throw failure();
    };
    const options = { source, target, requestSize: PAGE, requests: 1 };
    const job = copy({ ...options, onReadError: 'ignore', onWriteError: 'stop' });
    job.on('paused', () => {
      writes.clear();
      job.resume();
    });
    const report = await job;
    expect(flushes).toBe(3);
    expect(report.errors).toMatchObject([{ side: 'source', offset: 9 * PAGE, length: PAGE }]);
    expect(report.leftOutBytes).toBe(PAGE);
    expect((await pageOf(memory, 9)).every((byte) => byte === 0)).toBe(true);
  });

  it('come into the digest once', async () => {
    const memory = fakeDevice(SIZE);
    const source = fakeDevice(SIZE);
    await source.write(3 * PAGE, pattern(20 * PAGE));
    const target = forgetful(memory, 'flush fails');
    const options = { source, digest: true } as const;
    const { digest } = await copy({ ...options, target: fakeDevice(SIZE) });
    const again = await copy({ ...options, target, onWriteError: 'retry' });
    expect(again.digest).toBe(digest);
    expect(digest).toBeDefined();
  });
});

it('an incremental copy zeroes what it cannot read, and leaves what is clean alone', async () => {
  const { source, target, memory } = await devices({ reads: new Set([4]) });
  const before = await contentOf(memory);
  const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
  bitmap.set(4 * PAGE, 2 * PAGE);
  const report = await copy({ source, target, bitmap, onReadError: 'ignore' });
  expect(report).toMatchObject({ leftOutBytes: PAGE, movedBytes: PAGE });
  const want = Buffer.from(before);
  want.fill(0, 4 * PAGE, 5 * PAGE);
  want.set(pattern(SIZE).subarray(5 * PAGE, 6 * PAGE), 5 * PAGE);
  expect(Buffer.compare(await contentOf(memory), want)).toBe(0);
});

it('policies that make no sense are refused before anything is opened', () => {
  const devices = { source: '/nowhere/a.raw', target: '/nowhere/b.raw' };
  expect(() => copy({ ...devices, onReadError: 'hope' as never })).toThrow(TypeError);
  expect(() => copy({ ...devices, retry: { attempts: -1 } })).toThrow(RangeError);
  expect(() => copy({ ...devices, retry: { backoffMs: 0.5 } })).toThrow(RangeError);
  expect(() => copy({ ...devices, digest: true, onReadError: 'ignore' })).toThrow(/digest/);
});

describe('with a resume file', () => {
  const folder = temporaryFolder();
  let count = 0;
  const newFile = () => join(folder, `${count++}.resume`);

  it('a checkpoint whose flush fails is outlived as its policy says, and never taken for a success', async () => {
    for (const onWriteError of ['report', 'retry', 'stop'] as const) {
      const { source, target, content, memory } = await devices({});
      let flushes = 0;
      const flush = target.flush.bind(target);
      target.flush = async (options) => {
        await flush(options);
        // The first is made before anything is written; the second by a checkpoint in the middle.
        if (++flushes !== 2) return;
        await memory.write(0, pattern(8 * PAGE, 99));
        throw failure();
      };
      const resume = newFile();
      const options = { source, target, resume, requestSize: PAGE, requests: 1, onWriteError };
      const job = copy({ ...options, rate: SIZE, retry: { backoffMs: 1 } });
      job.on('paused', () => job.resume());
      if (onWriteError === 'report') {
        await expect(job).rejects.toMatchObject({ errno: 'EIO' });
        expect(existsSync(resume)).toBe(true);
        continue;
      }
      job.setRate(2 * SIZE);
      await job;
      expect(await firstDifference(content, memory)).toBe(-1);
      expect(existsSync(resume)).toBe(false);
    }
  });

  it('what was left out before a copy was stopped is tried again by the next one', async () => {
    const reads = new Set([1, 2]);
    const { source, target, content, memory } = await devices({ reads });
    const options = { source, target, resume: newFile(), requestSize: PAGE, requests: 1 };
    const job = copy({ ...options, onReadError: 'ignore', rate: SIZE });
    while (job.progress().doneBytes < 20 * PAGE) await turn();
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    reads.clear();
    const report = await copy(options);
    expect(report.resumedBytes).toBeGreaterThan(0);
    expect(await firstDifference(content, memory)).toBe(-1);
  });

  it('what was left out is tried again also where the copy had gone on after a failure meanwhile', async () => {
    const [reads, writes] = [new Set([1, 2]), new Set([20, 40])];
    const { source, target, content, memory } = await devices({ reads, writes });
    const resume = newFile();
    const options = { source, target, resume, requestSize: PAGE, requests: 1 };
    const job = copy({ ...options, onReadError: 'ignore', onWriteError: 'stop' });
    job.on('paused', () => {
      // The first failure is mended, the second ends this run.
      if (!writes.delete(20)) job.stop();
      else job.resume();
    });
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    reads.clear();
    writes.clear();
    await copy(options);
    expect(await firstDifference(content, memory)).toBe(-1);
  });
});
