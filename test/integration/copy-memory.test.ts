/** A copy of weeks in miniature: a million requests, with everything that may grow, and memory that does not. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { runsOr } from '../support/long-run.js';

const MiB = 2 ** 20;

/** Reads and writes of 4 KiB each. */
const REQUESTS = runsOr(1_000_000);

const SCRIPT = `
  import { copy, Device } from 'lacuna';
  import { NullDriver } from '#dist/block/null.js';

  /** Forgets what it is given, tells no status, and fails now and then. */
  function device(size, fails) {
    const driver = new NullDriver({ driver: 'null', size });
    const { LacunaError } = errors;
    let count = 0;
    const change = {
      description: undefined,
      capabilities: { ...driver.capabilities, contexts: [], exactStatus: true },
      read: async () => {
        if (++count % 1000 === 0 && fails) throw new LacunaError('ERR_DEVICE_IO', 'bad', { errno: 'EIO' });
      },
    };
    return new Device(new Proxy(driver, {
      get: (target, key) => (key in change ? change[key] : Reflect.get(target, key)),
    }));
  }

  const errors = await import('lacuna/errors');
  const requests = Number(process.argv[1]);
  const size = (requests / 2) * 4096;
  const job = copy({
    source: device(size, true),
    target: device(size, false),
    requestSize: 4096,
    onReadError: 'ignore',
    rate: 2 ** 50,
  });
  job.on('progress', () => {});
  const samples = [];
  let next = 0.2;
  // Oftener than the job tells its progress: a fast machine is done within a few of those.
  const sampler = setInterval(() => {
    const { doneBytes, totalBytes } = job.progress();
    if (totalBytes === 0 || doneBytes / totalBytes < next) return;
    next += 0.1;
    globalThis.gc();
    const { heapUsed, rss, external } = process.memoryUsage();
    samples.push({ heapUsed: heapUsed + external, rss });
  }, 10);
  for await (const _progress of job) {
    job.setRate(2 ** 50 + samples.length);
    job.pause();
    job.resume();
  }
  clearInterval(sampler);
  const { errors: left, moreErrors, requests: made, rate } = await job;
  console.log(JSON.stringify({ samples, ranges: left.length, moreErrors, made, steps: rate.bytesPerSecond.length }));
`;

test(`memory is flat over ${REQUESTS} requests`, { timeout: 300_000 }, async () => {
  const args = ['--expose-gc', '--input-type=module', '-e', SCRIPT, `${REQUESTS}`];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const { samples, ranges, moreErrors, made } = JSON.parse(stdout);
  expect(made).toBeGreaterThan(REQUESTS * 0.99);
  // One page in a thousand was bad, and that list is bounded too.
  expect(ranges + moreErrors).toBeGreaterThan(0);
  expect(ranges).toBeLessThanOrEqual(1000);
  expect(samples.length).toBeGreaterThan(3);
  const [first, last] = [samples[0], samples.at(-1)];
  const told = JSON.stringify(samples);
  expect(last.heapUsed - first.heapUsed, told).toBeLessThan(2 * MiB);
  expect(last.rss - first.rss, told).toBeLessThan(32 * MiB);
});
