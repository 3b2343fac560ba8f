import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { Device, type Driver, MemoryDriver } from '#dist/block/index.js';
import { compare, copy } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { ExtentList, Status } from '#dist/extent/index.js';
import { contentOf, fakeDevice, firstDifference, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';

const PAGE = 4096;
const PAGES = 48;
const SIZE = PAGES * PAGE - 1000;
/** What memory allocates at once, and so calls data. */
const MEMORY_PAGE = 65536;
const { capabilities } = fakeDevice(1);

/** Ways in which a target may be less than ideal. */
const TARGETS: Record<string, Partial<Driver>> = {
  'knows and does everything': {},
  'is not known to be zero': { capabilities: { ...capabilities, knownZero: false } },
  'has no fast zero': { capabilities: { ...capabilities, knownZero: false, fastZero: false } },
  'tells no status': {
    capabilities: { ...capabilities, knownZero: false, fastZero: false, contexts: [] },
  },
  'cannot zero': {
    capabilities: { ...capabilities, knownZero: false, fastZero: false, zero: false, contexts: [] },
  },
  'refuses a fast zero': {
    capabilities: { ...capabilities, knownZero: false, contexts: [] },
    async zero(this: Driver & { write: NonNullable<Driver['write']> }, offset, length, options) {
      if (options.fast) throw new LacunaError('ERR_NBD_REMOTE', 'too slow', { errno: 'ENOTSUP' });
      await this.write(offset, new Uint8Array(length), {});
    },
  },
};

/** Ways in which a source may tell its status. */
const SOURCES: Record<string, Partial<Driver>> = {
  'is exact': {},
  'tells no status': { capabilities: { ...capabilities, contexts: [], exactStatus: false } },
  'calls everything data': {
    capabilities: { ...capabilities, exactStatus: false },
    extents: async (offset, length) => [ExtentList.of(offset, length, Status.data)],
  },
};

const pages = fc.uniqueArray(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: PAGES });

async function fill(device: Device, where: readonly number[], seed: number): Promise<void> {
  for (const page of where) {
    const offset = page * PAGE;
    await device.write(offset, pattern(Math.min(PAGE, SIZE - offset), seed + page));
  }
}

for (const [sourceName, sourceChange] of Object.entries(SOURCES)) {
  for (const [targetName, targetChange] of Object.entries(TARGETS)) {
    describe(`copy from a source that ${sourceName} to a target that ${targetName}`, () => {
      it('makes the target equal, whatever was on it', async () => {
        await fc.assert(
          fc.asyncProperty(
            pages,
            pages,
            fc.constantFrom('off', 'on', 'unmap', undefined),
            async (data, old, detectZeroes) => {
              const source = fakeDevice(SIZE, sourceChange);
              const target = fakeDevice(SIZE, targetChange);
              await fill(source, data, 1);
              await fill(target, old, 100);
              const report = await copy({ source, target, ...(detectZeroes && { detectZeroes }) });
              expect(await firstDifference(target, source)).toBe(-1);
              expect(report.movedBytes + report.zeroedBytes + report.skippedBytes).toBe(SIZE);
            },
          ),
          { numRuns: 25 },
        );
      });

      it('moves every change, zeroes among them, and nothing that is clean', async () => {
        await fc.assert(
          fc.asyncProperty(pages, pages, pages, async (first, changed, zeroed) => {
            const source = fakeDevice(SIZE, sourceChange);
            const target = fakeDevice(SIZE, targetChange);
            const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
            await fill(source, first, 1);
            await copy({ source, target });
            await fill(source, changed, 50);
            for (const page of zeroed)
              await source.zero(page * PAGE, Math.min(PAGE, SIZE - page * PAGE));
            for (const page of [...changed, ...zeroed])
              bitmap.set(page * PAGE, Math.min(PAGE, SIZE - page * PAGE));
            const report = await copy({ source, target, bitmap });
            expect(await firstDifference(target, source)).toBe(-1);
            expect(report.movedBytes + report.zeroedBytes).toBeLessThanOrEqual(bitmap.dirtyBytes);
          }),
          { numRuns: 25 },
        );
      });
    });
  }
}

describe('copy', () => {
  it('touches nothing where both sides are empty, however large', async () => {
    const report = await copy({ source: fakeDevice(2 ** 50), target: fakeDevice(2 ** 50) });
    expect(report).toMatchObject({ movedBytes: 0, zeroedBytes: 0, requests: 0 });
  });

  it('takes the word of a caller who says that the target is zero', async () => {
    const source = fakeDevice(SIZE);
    const target = fakeDevice(SIZE, {
      capabilities: { ...capabilities, knownZero: false, contexts: [] },
    });
    await fill(source, [3], 1);
    const report = await copy({ source, target, targetIsZero: true });
    expect(report).toMatchObject({ movedBytes: MEMORY_PAGE, zeroedBytes: 0 });
  });

  it('refuses a smaller target, and says that the rest of a larger one was left', async () => {
    const source = fakeDevice(SIZE);
    await expect(copy({ source, target: fakeDevice(SIZE - 1) })).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
    });
    const { warnings } = await copy({ source, target: fakeDevice(SIZE + 1) });
    expect(warnings.join()).toContain('1 byte larger');
  });

  it('tells progress that ends with all of it done', async () => {
    const source = fakeDevice(SIZE);
    await fill(source, [1, 2, 3], 1);
    const phases = [];
    let last: unknown;
    for await (const progress of copy({ source, target: fakeDevice(SIZE) })) {
      phases.push(progress.phase);
      last = progress;
    }
    expect(phases.at(-1)).toBe('done');
    expect(last).toMatchObject({ totalBytes: MEMORY_PAGE, doneBytes: MEMORY_PAGE });
  });

  it('fails the one who iterates as well as the one who awaits', async () => {
    const source = fakeDevice(SIZE, {
      read: () => Promise.reject(new LacunaError('ERR_DEVICE_IO', 'bad sector', { errno: 'EIO' })),
      capabilities: { ...capabilities, contexts: [] },
    });
    const job = copy({ source, target: fakeDevice(SIZE) });
    await expect(job).rejects.toMatchObject({ code: 'ERR_DEVICE_IO', errno: 'EIO' });
    const iterate = async () => {
      for await (const _ of copy({ source, target: fakeDevice(SIZE) }));
    };
    await expect(iterate()).rejects.toMatchObject({ errno: 'EIO' });
  });

  it('stops when its signal fires, even in the middle of a request', async () => {
    const abort = new AbortController();
    const source = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: (_offset, _target, signal) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(signal.reason));
          abort.abort();
        }),
    });
    await expect(
      copy({ source, target: fakeDevice(SIZE), signal: abort.signal }),
    ).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      name: 'AbortError',
    });
  });

  it('copies sizes that no number of windows divides', async () => {
    const size = 100 * 2 ** 20 + 1;
    const source = fakeDevice(size, { capabilities: { ...capabilities, contexts: [] } });
    await source.write(size - 1, Uint8Array.of(7));
    const target = fakeDevice(size);
    await copy({ source, target });
    expect(await firstDifference(source, target)).toBe(-1);
  });

  it('copies what was dirty when it was asked, whatever becomes of the bitmap', async () => {
    const [source, target] = [fakeDevice(SIZE), fakeDevice(SIZE)];
    await fill(source, [3], 1);
    const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
    bitmap.set(3 * PAGE, PAGE);
    const job = copy({ source, target, bitmap });
    bitmap.resetAll();
    bitmap.free();
    expect((await job).movedBytes).toBe(PAGE);
    expect(await firstDifference(source, target)).toBe(-1);
  });

  it('hears its signal while it zeroes many small ranges that a driver zeroes at once', async () => {
    const size = 2 ** 30;
    const bitmap = new Bitmap({ size, granularity: 512 });
    for (let at = 0; at < 100_000; at++) bitmap.set(at * 8192, 512);
    const target = fakeDevice(size, {
      capabilities: { ...capabilities, knownZero: false, contexts: [] },
    });
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 1);
    const job = copy({ source: fakeDevice(size), target, bitmap, signal: abort.signal });
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('warns when nobody knows whether the target is durable', async () => {
    const target = fakeDevice(SIZE, { capabilities: { ...capabilities, flush: false } });
    const { warnings } = await copy({ source: fakeDevice(SIZE), target });
    expect(warnings.join()).toContain('cannot flush');
    expect((await copy({ source: fakeDevice(SIZE), target, flush: false })).warnings).toEqual([]);
  });

  it('tells the first failure, not one of closing what it had opened', async () => {
    const source = fakeDevice(SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: () => Promise.reject(new LacunaError('ERR_DEVICE_IO', 'first', { errno: 'EIO' })),
    });
    await expect(copy({ source, target: 'null:' })).rejects.toMatchObject({ message: 'first' });
  });

  it('refuses options that make no sense before it opens anything', () => {
    const devices = { source: '/nowhere/a.raw', target: '/nowhere/b.raw' };
    expect(() => copy({ ...devices, requestSize: 5000 })).toThrow(/power of two, not 5000/);
    expect(() => copy({ ...devices, requests: 0 })).toThrow(RangeError);
    expect(() => copy({ ...devices, threads: -1 })).toThrow(RangeError);
    const slots = { requests: 1024, requestSize: 2 ** 25 };
    expect(() => copy({ ...devices, ...slots })).toThrow(/in flight/);
  });
});

describe('compare', () => {
  it('finds the first byte that differs, or none', async () => {
    await fc.assert(
      fc.asyncProperty(
        pages,
        fc.option(fc.integer({ min: 0, max: SIZE - 1 })),
        async (data, at) => {
          const [a, b] = [fakeDevice(SIZE), fakeDevice(SIZE, SOURCES['tells no status'])];
          await fill(a, data, 1);
          await fill(b, data, 1);
          if (at !== null) {
            const byte = new Uint8Array(1);
            await a.read(at, byte);
            await b.write(at, Uint8Array.of(byte[0] ^ 0xff));
          }
          const report = await compare({ a, b, requestSize: 8192 });
          expect(report.equal).toBe(at === null);
          expect(report.offset).toBe(at ?? undefined);
        },
      ),
    );
  });

  it('reads nothing where both sides are known to be zero', async () => {
    const [a, b] = [fakeDevice(2 ** 50), fakeDevice(2 ** 50)];
    expect(await compare({ a, b })).toMatchObject({ equal: true, comparedBytes: 0 });
  });

  it('has ended only when neither side is asked any more', async () => {
    const [a, b] = [fakeDevice(SIZE), fakeDevice(SIZE)];
    a.someExtents = () => Promise.reject(new TypeError('a fault of the driver'));
    let answer = () => {};
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const { someExtents } = b;
    b.someExtents = async (...args) => {
      await answered;
      return await someExtents.apply(b, args);
    };
    const job = compare({ a, b });
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(job.state).toBe('running');
    answer();
    await expect(job).rejects.toThrow('a fault of the driver');
  });

  it('refuses to compare with no requests at all', async () => {
    const [a, b] = [fakeDevice(SIZE), fakeDevice(SIZE)];
    expect(() => compare({ a, b, requests: 0 })).toThrow(RangeError);
  });

  it('stops reading when a read fails', async () => {
    let reads = 0;
    const bad = fakeDevice(64 * SIZE, {
      capabilities: { ...capabilities, contexts: [] },
      read: async () => {
        reads++;
        throw new LacunaError('ERR_DEVICE_IO', 'bad sector', { errno: 'EIO' });
      },
    });
    const options = { a: bad, b: fakeDevice(64 * SIZE), requestSize: 4096 };
    await expect(compare(options)).rejects.toMatchObject({ errno: 'EIO' });
    expect(reads).toBeLessThanOrEqual(8);
  });

  it('takes the missing end of the smaller one for zeroes, unless it is strict', async () => {
    const [a, b] = [fakeDevice(SIZE), fakeDevice(SIZE + PAGE)];
    expect(await compare({ a, b })).toMatchObject({ equal: true });
    const strict = await compare({ a, b, strict: true });
    expect([strict.equal, strict.offset]).toEqual([false, undefined]);
    await b.write(SIZE + 10, Uint8Array.of(1));
    expect(await compare({ a, b })).toMatchObject({ equal: false, offset: SIZE + 10 });
  });
});

describe('a copy of a disk onto itself, under two names', () => {
  it('leaves the disk as it is', async () => {
    const disk = new MemoryDriver({ size: 1024 * PAGE });
    const source = new Device(disk);
    await source.write(500 * PAGE, pattern(20 * PAGE));
    const before = await contentOf(source);
    // It is known by another server, which does not tell what is zero.
    const target = fakeDevice(1024 * PAGE, {
      capabilities: { ...capabilities, knownZero: false, contexts: [] },
      read: (offset, bytes) => disk.read(offset, bytes),
      write: (offset, bytes) => disk.write(offset, bytes),
      zero: (offset, length) => disk.zero(offset, length),
    });
    await copy({ source, target });
    expect(Buffer.compare(await contentOf(source), before)).toBe(0);
  });
});
