/** Options of a copy that have little to do with one another, together, over disks of odd sizes that fail at times. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { type Device, MemoryDriver } from '#dist/block/index.js';
import { type CopyOptions, copy, digest } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { stepsOr } from '../../support/long-run.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

/** Copies. */
const RUNS = stepsOr(300);

const SIZES = [0, 1, 511, 512, 4095, 4096, 4097, 65536, 65537, 200_001, 1_049_089];
const OLD = 99;
const { capabilities } = fakeDevice(1);
const folder = temporaryFolder();
let files = 0;

const range = fc.record({
  at: fc.double({ min: 0, max: 0.999, noNaN: true }),
  length: fc.integer({ min: 1, max: 100_000 }),
  isZero: fc.boolean(),
});
type Range = typeof range extends fc.Arbitrary<infer T> ? T : never;

const placeOf = ({ at, length }: Range, size: number) => {
  const offset = Math.floor(at * size);
  return { offset, length: Math.min(length, size - offset) };
};

const disks = fc.record({
  size: fc.constantFrom(...SIZES),
  more: fc.constantFrom(0, 0, 777),
  written: fc.array(range, { maxLength: 8 }),
  minimum: fc.constantFrom(1, 1, 512, 4096),
  fastZero: fc.boolean(),
  tellsStatus: fc.boolean(),
  isOld: fc.boolean(),
  failures: fc.constantFrom(0, 1, 2, 5),
  dirty: fc.option(fc.tuple(fc.constantFrom(512, 4096, 65536), fc.array(range, { maxLength: 3 }))),
});
type Disks = typeof disks extends fc.Arbitrary<infer T> ? T : never;

const options = fc.record({
  sequential: fc.boolean(),
  verify: fc.boolean(),
  unmap: fc.boolean(),
  flush: fc.boolean(),
  requests: fc.constantFrom(1, 3, 8),
  requestSize: fc.constantFrom(4096, 65536, 524_288),
  detectZeroes: fc.constantFrom('off', 'on', 'unmap'),
  rate: fc.constantFrom(undefined, undefined, 50e6),
  retry: fc.record({ attempts: fc.constantFrom(0, 20), backoffMs: fc.constant(0) }),
  onWriteError: fc.constantFrom('report', 'retry', 'stop'),
});

/** A disk that may fail each of its first requests, and keeps what it takes in `memory`. */
function fragile(memory: Device, { minimum, fastZero, tellsStatus, failures }: Disks): Device {
  let left = failures;
  let requests = 0;
  const mayFail = async () => {
    if (requests++ % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (left === 0 || requests % 2 === 0) return;
    left--;
    throw new LacunaError('ERR_DEVICE_IO', 'it fails at times', { errno: 'EIO' });
  };
  const { limits } = new MemoryDriver({ size: memory.size });
  return fakeDevice(memory.size, {
    limits: memory.size % minimum === 0 ? { ...limits, minimum } : limits,
    capabilities: {
      ...capabilities,
      knownZero: false,
      fastZero,
      contexts: tellsStatus ? ['base:allocation'] : [],
    },
    extents: (offset, length) => memory.extents(offset, length),
    read: (offset, target) => memory.read(offset, target),
    write: async (offset, bytes) => {
      const kept = Uint8Array.from(bytes);
      await mayFail();
      await memory.write(offset, kept);
    },
    zero: async (offset, length) => {
      await mayFail();
      await memory.zero(offset, length);
    },
  });
}

async function makeDisks(given: Disks) {
  const { size, more, written, isOld, dirty } = given;
  const source = fakeDevice(size);
  for (const [i, one] of (size > 0 ? written : []).entries()) {
    const { offset, length } = placeOf(one, size);
    await source.write(offset, one.isZero ? new Uint8Array(length) : pattern(length, i));
  }
  const content = await contentOf(source);
  const memory = fakeDevice(size + (dirty ? 0 : more));
  const before = Buffer.alloc(memory.size, isOld ? OLD : 0);
  let bitmap: Bitmap | undefined;
  if (dirty) {
    bitmap = new Bitmap({ size, granularity: dirty[0] });
    for (const one of size > 0 ? dirty[1] : []) {
      const { offset, length } = placeOf(one, size);
      bitmap.set(offset, length);
    }
    // What is clean is the same on both sides.
    before.set(content);
    for (const { offset, length } of bitmap.ranges()) before.fill(OLD, offset, offset + length);
  }
  await memory.write(0, before);
  const want = Buffer.from(before);
  want.set(content);
  return { source, memory, bitmap, want };
}

it('makes the target equal, whatever is asked for together, and however often it has to go on', async () => {
  const property = fc.asyncProperty(
    disks,
    options,
    fc.constantFrom('resume', 'digest', 'neither'),
    async (given, { rate, ...others }, also) => {
      const { source, memory, bitmap, want } = await makeDisks(given);
      const wanted: CopyOptions = {
        ...others,
        source,
        target: fragile(memory, given),
        targetIsZero: !given.isOld && given.dirty === null,
        ...(rate && { rate }),
        ...(bitmap && { bitmap }),
        ...(also === 'resume' && { resume: join(folder, `${files++}.resume`) }),
        ...(also === 'digest' &&
          !bitmap && { digest: true, requestSize: Math.max(65536, others.requestSize) }),
      };
      const report = await copyAtLast(wanted);
      expect(report.errors).toEqual([]);
      expect(Buffer.compare(await contentOf(memory), want)).toBe(0);
      if (wanted.digest) expect(report.digest).toBe((await digest(source)).digest);
      if (wanted.resume) expect(existsSync(wanted.resume)).toBe(false);
      bitmap?.free();
    },
  );
  await fc.assert(property, { numRuns: RUNS });
});

/** Copies until it succeeds; every other run is stopped after a while. */
async function copyAtLast(wanted: CopyOptions) {
  for (let run = 0; ; run++) {
    const job = copy(wanted);
    job.on('paused', () => job.resume());
    if (run === 0) job.pause();
    setTimeout(() => (run === 0 ? job.resume() : undefined), 1);
    if (run % 2 === 1) setTimeout(() => job.stop(), 2);
    try {
      return await job;
    } catch (error) {
      if (!(error instanceof LacunaError) || error.code === 'ERR_COPY_VERIFY') throw error;
    }
  }
}
