/** All long work has one shape: what holds for one verb holds for every one. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { beforeEach, describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { createQcow2, openDevice } from '#dist/block/index.js';
import { commit, rebase } from '#dist/chain/index.js';
import { compare, copy, copyFromStream, copyToStream, digest, populate } from '#dist/copy/index.js';
import type { Job, JobOptions } from '#dist/job/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const SIZE = 256 * KIB;
const folder = temporaryFolder();
const [base, top, other] = ['base.raw', 'top.qcow2', 'other.raw'].map((name) => join(folder, name));

/** Both ends of a copy, full of data. */
const ends = () => ({ source: full(), target: fakeDevice(SIZE) });
const full = () =>
  fakeDevice(SIZE, {
    extents: undefined,
    read: async (offset, target) =>
      void target.set(pattern(SIZE).subarray(offset).subarray(0, target.length)),
  });

const VERBS: [string, (options: JobOptions) => Job<unknown>][] = [
  ['copy', (options) => copy({ ...ends(), requestSize: 4 * KIB, ...options })],
  ['compare', (options) => compare({ a: full(), b: full(), ...options })],
  ['digest', (options) => digest(full(), options)],
  ['populate', ({ signal }) => populate({ sources: [full()], targets: [bitmap()], signal })],
  ['commit', (options) => commit({ top, ...options })],
  [
    'rebase',
    (options) => rebase({ image: top, backing: { filename: other, format: 'raw' }, ...options }),
  ],
  [
    'copyFromStream',
    (options) => copyFromStream(Readable.from([pattern(SIZE)]), fakeDevice(SIZE), options),
  ],
  ['copyToStream', (options) => copyToStream(full(), new PassThrough().resume(), options)],
];

const bitmap = () => new Bitmap({ size: SIZE, granularity: 4096 });
const turns = async () => {
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
};

beforeEach(async () => {
  writeFileSync(base, pattern(SIZE));
  writeFileSync(other, Buffer.alloc(SIZE));
  await createQcow2(top, {
    size: SIZE,
    backing: { filename: 'base.raw', format: 'raw' },
    exclusive: false,
  });
  await using device = await openDevice(top, { writable: true });
  await device.write(0, pattern(SIZE / 2, 7));
});

describe.each(VERBS)('the job of %s', (_verb, begin) => {
  it('tells how it goes, and ends as done', async () => {
    const job = begin({});
    expect(job.state).toBe('running');
    const told: unknown[] = [];
    job.on('done', (report) => told.push(report));
    const states = [];
    for await (const { state } of job) states.push(state);
    expect(states.at(-1)).toBe('done');
    expect(told).toEqual([await job]);
    const { totalBytes, doneBytes } = job.progress();
    expect(doneBytes).toBeGreaterThan(0);
    expect(totalBytes === 0 || totalBytes === doneBytes).toBe(true);
  });

  it('moves nothing while it is paused, and is done when it is resumed', async () => {
    const job = begin({});
    job.pause();
    await turns();
    expect(job.progress()).toMatchObject({ state: 'paused', doneBytes: 0 });
    job.resume();
    await job;
    expect(job.state).toBe('done');
  });

  it('ends when it is stopped while it is paused', async () => {
    const job = begin({});
    job.pause();
    await turns();
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(job.state).toBe('stopped');
  });

  it('ends when its signal fires while it is paused', async () => {
    const abort = new AbortController();
    const job = begin({ signal: abort.signal });
    job.pause();
    await turns();
    abort.abort();
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(job.state).toBe('stopped');
  });

  it('takes any rate, before and while it runs, and refuses a rate of 0', async () => {
    const job = begin({ rate: 1 });
    expect(() => job.setRate(0)).toThrow(RangeError);
    job.setRate(2 ** 30);
    await job;
  });
});
