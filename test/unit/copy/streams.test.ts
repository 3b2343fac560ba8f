import {
  createReadStream,
  createWriteStream,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { copyFromStream, copyToStream, type StreamJob } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { Random } from '#dist/testing/index.js';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { firstSeed } from '../../support/long-run.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const folder = temporaryFolder();
const random = new Random(firstSeed());
const { capabilities } = fakeDevice(1);

/** Pieces of data and zeroes, as the bytes of a stream in chunks of any length. */
const streams = fc
  .tuple(
    fc.array(fc.tuple(fc.integer({ min: 1, max: 200 * KIB }), fc.boolean()), { maxLength: 8 }),
    fc.integer({ min: 1, max: 150 * KIB }),
  )
  .map(([parts, chunk]) => {
    const bytes = Buffer.concat(
      parts.map(([length, isZero], i) => (isZero ? Buffer.alloc(length) : pattern(length, i))),
    );
    const chunks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += chunk) chunks.push(bytes.subarray(at, at + chunk));
    return { bytes, chunks };
  });

describe('copyFromStream', () => {
  it('makes a sparse file of exactly what came', async () => {
    await fc.assert(
      fc.asyncProperty(
        streams,
        fc.constantFrom(1, 4),
        fc.constantFrom(4 * KIB, 64 * KIB),
        async ({ bytes, chunks }, requests, requestSize) => {
          const path = join(folder, 'out.raw');
          const options = { requests, requestSize, flush: false };
          const report = await copyFromStream(Readable.from(chunks), path, options);
          expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
          expect(report.size).toBe(bytes.length);
          expect(report.movedBytes + report.skippedBytes).toBe(bytes.length);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('overwrites what a device held, by zero requests where the stream is zero', async () => {
    await fc.assert(
      fc.asyncProperty(streams, async ({ bytes, chunks }) => {
        const device = fakeDevice(2 * MIB, { capabilities: { ...capabilities, knownZero: false } });
        const before = Buffer.alloc(2 * MIB, 'what was there');
        await device.write(0, before);
        const report = await copyFromStream(Readable.from(chunks), device);
        before.set(bytes);
        expect(Buffer.compare(await contentOf(device), before)).toBe(0);
        expect(report.skippedBytes).toBe(0);
        expect(report.warnings).toHaveLength(bytes.length < 2 * MIB ? 1 : 0);
      }),
      { numRuns: 30 },
    );
  });

  it('grows a file beyond what it was made with', async () => {
    const path = join(folder, 'large.raw');
    const zeroes = Buffer.alloc(16 * MIB);
    const chunks = [...Array.from({ length: 65 }, () => zeroes), Buffer.from('end')];
    await copyFromStream(Readable.from(chunks), path);
    const { size, blocks } = statSync(path);
    expect(size).toBe(65 * 16 * MIB + 3);
    expect(blocks * 512).toBeLessThan(MIB);
    const tail = Buffer.alloc(3);
    const { openDevice } = await import('#dist/block/index.js');
    const device = await openDevice(path);
    await device.read(size - 3, tail);
    await device.close();
    expect(tail.toString()).toBe('end');
  });

  it('reads no faster than it writes', async () => {
    let read = 0;
    let written = 0;
    let most = 0;
    const readable = new Readable({
      highWaterMark: 64 * KIB,
      read() {
        read += 64 * KIB;
        most = Math.max(most, read - written);
        this.push(read > 8 * MIB ? null : Buffer.alloc(64 * KIB, 1));
      },
    });
    const slow = fakeDevice(8 * MIB, {
      write: async (_offset, bytes) => {
        await sleep(1);
        written += bytes.length;
      },
    });
    await copyFromStream(readable, slow, { requests: 2, requestSize: 64 * KIB });
    expect(written).toBe(8 * MIB);
    expect(most).toBeLessThan(MIB);
  });

  it('refuses more than there is room for', async () => {
    const chunks = [Buffer.alloc(100, 1), Buffer.alloc(KIB)];
    const promise = copyFromStream(Readable.from(chunks), fakeDevice(KIB));
    await expect(promise).rejects.toMatchObject({ code: 'ERR_COPY_MISMATCH' });
  });

  it('leaves nothing where nothing was written', async () => {
    const path = join(folder, 'nothing.raw');
    const text = Readable.from(['no bytes', 'but text']);
    await expect(copyFromStream(text, path)).rejects.toThrow('one of bytes');
    const zeroes = async function* () {
      yield Buffer.alloc(MIB);
      throw new Error('the pipe broke');
    };
    await expect(copyFromStream(Readable.from(zeroes()), path)).rejects.toThrow('the pipe broke');
    expect(readdirSync(folder).filter((name) => name.startsWith('nothing.raw'))).toEqual([]);
  });

  it('ends where it is given up while the target is opened, although nothing comes', async () => {
    const abort = new AbortController();
    const target = new Proxy(fakeDevice(4096), {
      get(device, key) {
        if (key === 'capabilities') abort.abort();
        const value = Reflect.get(device, key, device);
        return typeof value === 'function' ? value.bind(device) : value;
      },
    });
    const job = copyFromStream(new PassThrough(), target, { signal: abort.signal });
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it.each(['an error of the stream', 'a cancel'])('leaves a rest after %s', async (what) => {
    const path = join(folder, `${what}.raw`);
    const abort = new AbortController();
    const readable = new PassThrough();
    readable.write(Buffer.alloc(MIB, 'a'));
    const job = copyFromStream(readable, path, { signal: abort.signal, requestSize: 64 * KIB });
    const failed = expect(job).rejects.toThrow(/Aborted|the pipe broke/);
    await expect.poll(() => job.progress().movedBytes).toBeGreaterThan(0);
    if (what === 'a cancel') abort.abort();
    else readable.destroy(new Error('the pipe broke'));
    await failed;
    expect(existsSync(path)).toBe(false);
    expect(readdirSync(folder)).toContainEqual(expect.stringContaining(`${what}.raw.partial-`));
  });

  it('fails as a write fails, and reads no further', async () => {
    const readable = Readable.from(Array.from({ length: 100 }, () => Buffer.alloc(64 * KIB, 1)));
    const full = fakeDevice(100 * MIB, {
      write: async () => {
        throw new Error('no room');
      },
    });
    const promise = copyFromStream(readable, full, { requestSize: 64 * KIB });
    await expect(promise).rejects.toThrow('no room');
    expect(readable.destroyed).toBe(true);
  });
});

/** Takes everything, as slowly as it is told. */
function collector(ms = 0): { stream: Writable; chunks: Uint8Array[] } {
  const chunks: Uint8Array[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      chunks.push(chunk);
      if (ms === 0) done();
      else setTimeout(done, ms);
    },
  });
  return { stream, chunks };
}

describe('copyToStream', () => {
  it('writes all bytes in order, and keeps none of them for other bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        streams,
        fc.constantFrom(1, 3),
        fc.constantFrom(4 * KIB, 64 * KIB),
        async ({ bytes }, requests, requestSize) => {
          const source = fakeDevice(bytes.length + 70 * KIB, {
            read: async (offset, target) => {
              await sleep(random.below(3));
              target.fill(0).set(bytes.subarray(offset, offset + target.length));
            },
          });
          await source.write(0, bytes);
          const { stream, chunks } = collector();
          const report = await copyToStream(source, stream, { requests, requestSize });
          const expected = Buffer.concat([bytes, Buffer.alloc(70 * KIB)]);
          expect(Buffer.compare(Buffer.concat(chunks), expected)).toBe(0);
          expect(report.size).toBe(expected.length);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('reads ahead of a slow stream, but not far', async () => {
    let reading = 0;
    const source = fakeDevice(4 * MIB, {
      extents: undefined,
      read: async (_offset, target) => {
        reading += target.length;
        most = Math.max(most, reading - job.progress().doneBytes);
      },
    });
    const { stream, chunks } = collector(1);
    let most = 0;
    const job = copyToStream(source, stream, { requests: 4, requestSize: 64 * KIB });
    await job;
    expect(chunks).toHaveLength(64);
    expect(most).toBeGreaterThanOrEqual(2 * 64 * KIB);
    expect(most).toBeLessThanOrEqual(4 * 64 * KIB);
  });

  it('fails as the source or the stream fails, and ends with a cancel', async () => {
    const source = fakeDevice(MIB);
    await source.write(0, pattern(MIB));
    const broken = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error('gone'), { code: 'EPIPE' })),
    });
    await expect(copyToStream(source, broken)).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
      errno: 'EPIPE',
    });
    const { stream } = collector();
    stream.destroy();
    await expect(copyToStream(source, stream)).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    const stuck = new Writable({ write: () => {} });
    const signal = AbortSignal.timeout(20);
    const cancelled = copyToStream(source, stuck, { signal });
    await expect(cancelled).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const unreadable = fakeDevice(MIB, {
      extents: undefined,
      read: async () => {
        throw new Error('no such luck');
      },
    });
    await expect(copyToStream(unreadable, collector().stream)).rejects.toThrow('no such luck');
  });
});

describe('a stream that fails by itself', () => {
  it('fails the copy, whenever that happens, and nothing else', async () => {
    const path = join(folder, 'nowhere', 'x');
    const target = join(folder, 'from-nowhere.raw');
    await expect(copyFromStream(createReadStream(path), target)).rejects.toThrow(/ENOENT/);
    expect(existsSync(target)).toBe(false);

    const source = fakeDevice(MIB, {
      read: async (_offset, bytes) => {
        await sleep(20);
        bytes.fill(7);
      },
      capabilities: { ...capabilities, contexts: [] },
    });
    await expect(copyToStream(source, createWriteStream(path))).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
    });
    const full = createWriteStream('/dev/full');
    await expect(copyToStream(source, full)).rejects.toMatchObject({ errno: 'ENOSPC' });
    // What is thrown behind the back of a test fails the run.
    await sleep(50);
  });

  it('is not waited for once a write has failed', async () => {
    const target = fakeDevice(MIB, {
      write: async () => {
        throw new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
      },
    });
    const readable = new PassThrough();
    readable.write(pattern(64 * KIB));
    const copied = copyFromStream(readable, target, { requestSize: 64 * KIB });
    await expect(copied).rejects.toMatchObject({ errno: 'ENOSPC' });
    expect(readable.destroyed).toBe(true);
  });
});

describe('the progress of a stream', () => {
  const SIZE = 256 * KIB;
  const options = { requests: 4, requestSize: 16 * KIB };

  it('counts what was written, in whatever order that was', async () => {
    const memory = fakeDevice(SIZE);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const device = fakeDevice(SIZE, {
      write: async (offset, bytes) => {
        if (offset === 0) await held;
        await memory.write(offset, bytes);
      },
    });
    const job = copyFromStream(Readable.from([pattern(SIZE)]), device, options);
    await expect.poll(() => job.progress().doneBytes).toBe(15 * 16 * KIB);
    release();
    await job;
    const all = { doneBytes: SIZE, movedBytes: SIZE, zeroedBytes: 0, skippedBytes: 0 };
    expect(job.progress()).toMatchObject({ ...all, state: 'done', totalBytes: 0 });
  });

  it('does not count what could not be written', async () => {
    const target = fakeDevice(SIZE, {
      write: async () => {
        throw new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
      },
    });
    const job = copyFromStream(Readable.from([pattern(SIZE)]), target, options);
    await expect(job).rejects.toMatchObject({ errno: 'ENOSPC' });
    expect(job.progress()).toMatchObject({ state: 'failed', doneBytes: 0, movedBytes: 0 });
  });

  it('comes to a loop, and by events, with how much is data and how much is zero', async () => {
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(64 * KIB));
    const job = copyToStream(source, new PassThrough().resume(), options);
    const told: unknown[] = [];
    job.on('done', ({ size }) => told.push(size));
    const moments: unknown[] = [];
    for await (const moment of job) moments.push(moment);
    const counts = { movedBytes: 64 * KIB, zeroedBytes: 192 * KIB };
    const whole = { state: 'done', totalBytes: SIZE, doneBytes: SIZE };
    expect(moments.at(-1)).toMatchObject({ ...whole, ...counts });
    expect(told).toEqual([SIZE]);
  });
});

describe('a stream that is stopped', () => {
  it('leaves what was written, durable, under the name of an unfinished file', async () => {
    const target = join(folder, 'stopped.raw');
    const readable = new Readable({ read() {} });
    readable.push(pattern(64 * KIB));
    const job = copyFromStream(readable, target, { requestSize: 16 * KIB });
    await expect.poll(() => job.progress().doneBytes).toBe(64 * KIB);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(job.state).toBe('stopped');
    expect(readable.destroyed).toBe(true);
    expect(job.unfinished).toMatch(/stopped\.raw\.partial-/);
    const left = readFileSync(job.unfinished!).subarray(0, 64 * KIB);
    expect(Buffer.compare(left, Buffer.from(pattern(64 * KIB)))).toBe(0);
  });

  it('flushes a device, and tells where that fails', async () => {
    const device = fakeDevice(MIB, {
      flush: async () => {
        throw new LacunaError('ERR_DEVICE_IO', 'lost', { errno: 'EIO' });
      },
    });
    const readable = new Readable({ read() {} });
    readable.push(pattern(64 * KIB));
    const job = copyFromStream(readable, device, { requestSize: 16 * KIB });
    await expect.poll(() => job.progress().doneBytes).toBe(64 * KIB);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED', cause: { errno: 'EIO' } });
  });

  it('ends at once where nobody takes what is written', async () => {
    const stuck = new Writable({ write: () => {} });
    const job = copyToStream(fakeDevice(MIB), stuck);
    await expect.poll(() => job.progress().totalBytes).toBe(MIB);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  });

  it('ends while it is paused, and while a write has failed meanwhile', async () => {
    const device = fakeDevice(MIB, {
      write: async () => {
        job.pause();
        throw new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
      },
    });
    const job = copyFromStream(Readable.from([pattern(MIB)]), device, {
      requestSize: 16 * KIB,
      requests: 2,
    });
    await expect(job).rejects.toMatchObject({ errno: 'ENOSPC' });
    expect(job.state).toBe('failed');
  });
});

describe('a stream that is held back', () => {
  const SIZE = 256 * KIB;

  /** A stream that takes everything at once, and how much that is by now. */
  function sink() {
    const taken = { bytes: 0 };
    const writable = new Writable({
      write(chunk, _encoding, done) {
        taken.bytes += chunk.length;
        done();
      },
    });
    return { taken, writable };
  }

  it('is given nothing while its job is paused, and all of it in the end', async () => {
    const { taken, writable } = sink();
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(SIZE));
    const job = copyToStream(source, writable, { requestSize: 4 * KIB });
    job.pause();
    await sleep(50);
    expect(taken.bytes).toBe(0);
    job.resume();
    expect((await job).size).toBe(SIZE);
    expect(taken.bytes).toBe(SIZE);
  });

  it('is not read further while its job is paused', async () => {
    const device = fakeDevice(SIZE, { capabilities: { ...capabilities, knownZero: false } });
    const bytes = Buffer.from(pattern(SIZE));
    const job = copyFromStream(Readable.from([bytes]), device, { requestSize: 4 * KIB });
    job.pause();
    await sleep(50);
    expect(Buffer.compare(await contentOf(device), Buffer.alloc(SIZE))).toBe(0);
    job.resume();
    await job;
    expect(Buffer.compare(await contentOf(device), bytes)).toBe(0);
  });

  it('flows no faster than its rate, in both directions, until that is changed', async () => {
    const source = fakeDevice(SIZE);
    const { taken, writable } = sink();
    const out = copyToStream(source, writable, { rate: 64 * KIB });
    const device = fakeDevice(SIZE, { capabilities: { ...capabilities, knownZero: false } });
    const bytes = Buffer.from(pattern(SIZE));
    const into = copyFromStream(Readable.from([bytes]), device, { rate: 64 * KIB });
    const began = performance.now();
    await sleep(300);
    const seconds = (performance.now() - began) / 1000;
    // What the rate allows, and what may be caught up.
    for (const bytesDone of [taken.bytes, into.progress().doneBytes]) {
      expect(bytesDone).toBeLessThan(64 * KIB * (seconds + 0.7));
    }
    for (const job of [out, into]) job.setRate(undefined);
    await Promise.all([out, into]);
    expect(taken.bytes).toBe(SIZE);
    expect(Buffer.compare(await contentOf(device), bytes)).toBe(0);
  });

  it('ends when its signal fires while it waits', async () => {
    const cancel = new AbortController();
    const { signal } = cancel;
    const out = copyToStream(fakeDevice(SIZE), sink().writable, { signal });
    const into = copyFromStream(Readable.from([pattern(SIZE)]), fakeDevice(SIZE), {
      signal,
      rate: 1,
    });
    out.pause();
    setTimeout(() => cancel.abort(), 20);
    const ends = await Promise.allSettled([out, into]);
    expect(ends).toMatchObject(Array(2).fill({ reason: { code: 'ERR_ABORTED' } }));
  });

  it('is not waited for while its job is paused, once a write has failed', async () => {
    const readable = new PassThrough();
    const target = fakeDevice(SIZE, {
      write: async () => {
        job.pause();
        readable.write(pattern(4 * KIB));
        await sleep(20);
        throw new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
      },
    });
    readable.write(pattern(4 * KIB));
    const job: StreamJob = copyFromStream(readable, target, { requestSize: 4 * KIB });
    await expect(job).rejects.toMatchObject({ errno: 'ENOSPC' });
  });

  it('refuses rates that are not above 0', async () => {
    const begin = () => copyToStream(fakeDevice(1), sink().writable, { rate: 0 });
    expect(begin).toThrow(RangeError);
    const other = copyToStream(fakeDevice(1), sink().writable);
    expect(() => other.setRate(-1)).toThrow(RangeError);
    await other;
  });
});
