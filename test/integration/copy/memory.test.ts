/** A copy of weeks in miniature: a million requests, with everything that may grow, and memory that does not. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { runsOr } from '../../support/long-run.js';
import { run, usePeers } from '../../support/peers.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;

const peers = usePeers();
const folder = temporaryFolder();

/** Reads and writes of 4 KiB each. */
const REQUESTS = runsOr(1_000_000);

const SCRIPT = `
  import { copy, Device } from 'lacuna';
  import { NullDriver } from '#dist/block/drivers/null/null.js';

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

interface Sample {
  heapUsed: number;
  rss: number;
}

function expectFlat(samples: Sample[]): void {
  expect(samples.length).toBeGreaterThan(3);
  const [first, last] = [samples[0], samples[samples.length - 1]];
  const told = JSON.stringify(samples);
  expect(last.heapUsed - first.heapUsed, told).toBeLessThan(2 * MiB);
  expect(last.rss - first.rss, told).toBeLessThan(32 * MiB);
}

test(`memory is flat over ${REQUESTS} requests`, async () => {
  const args = ['--expose-gc', '--input-type=module', '-e', SCRIPT, `${REQUESTS}`];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const { samples, ranges, moreErrors, made } = JSON.parse(stdout);
  expect(made).toBeGreaterThan(REQUESTS * 0.99);
  // One page in a thousand was bad, and that list is bounded too.
  expect(ranges + moreErrors).toBeGreaterThan(0);
  expect(ranges).toBeLessThanOrEqual(1000);
  expectFlat(samples);
});

/** From an NBD server to another, in threads, with what remains kept in a file all the time. */
const RESUMABLE = `
  import { existsSync } from 'node:fs';
  import { copy } from 'lacuna';
  const [source, target, resume] = process.argv.slice(1);
  const job = copy({ source, target, resume, requestSize: 4096, threads: 2 });
  const samples = [];
  let next = 0.2;
  let kept = 0;
  for await (const { doneBytes, totalBytes } of job) {
    if (existsSync(resume)) kept++;
    if (totalBytes === 0 || doneBytes / totalBytes < next) continue;
    next += 0.1;
    globalThis.gc();
    const { heapUsed, rss, external } = process.memoryUsage();
    samples.push({ heapUsed: heapUsed + external, rss });
  }
  const { requests, threads } = await job;
  console.log(JSON.stringify({ samples, kept, requests, threads }));
`;

test('memory is flat in threads, over NBD, with a resume file', async () => {
  const requests = REQUESTS / 5;
  const size = String((requests / 2) * 4096);
  const source = await peers.nbdkit(['pattern', size]);
  const target = await peers.nbdkit(['null', size]);
  const resume = join(folder, 'copy.resume');
  const args = ['--expose-gc', '--input-type=module', '-e', RESUMABLE];
  const copied = async () =>
    JSON.parse(await run(process.execPath, [...args, source.uri, target.uri, resume]));
  let told = await copied();
  // Again where the thread that looks at it did not run for most of the time.
  for (let i = 0; i < 4 && told.samples.length <= 3; i++) told = await copied();
  const { samples, kept, requests: made, threads } = told;
  expect(threads).toBe(2);
  expect(made).toBeGreaterThan(requests * 0.99);
  expect(kept).toBeGreaterThan(3);
  expect(existsSync(resume)).toBe(false);
  expectFlat(samples);
});

/** What a copy to nowhere reports, and the most memory that its process ever had, in MiB. */
const EXTENTS = `
  import { copy } from 'lacuna';
  const [source, size] = process.argv.slice(1);
  const target = { driver: 'null', size: Number(size) };
  const { movedBytes, threads } = await copy({ source, target, threads: 2 });
  const mib = process.resourceUsage().maxRSS / 1024;
  console.log(JSON.stringify({ movedBytes, threads, mib }));
`;

test('a copy of a million extents, in threads, takes less than 200 MiB', async () => {
  const [count, length, step] = [1_000_000, 4096, 8192];
  const script = fileURLToPath(new URL('../../support/scattered-server.mjs', import.meta.url));
  const socket = join(folder, 'scattered.sock');
  const server = spawn(process.execPath, [script, socket, `${count}`, `${length}`, `${step}`]);
  onTestFinished(() => void server.kill());
  await once(server.stdout, 'data');
  const args = ['--input-type=module', '-e', EXTENTS, `nbd+unix:///?socket=${socket}`];
  const told = await run(process.execPath, [...args, `${count * step}`]);
  const { movedBytes, threads, mib } = JSON.parse(told);
  expect(movedBytes).toBe(count * length);
  expect(threads).toBe(2);
  expect(mib).toBeLessThan(200);
});
