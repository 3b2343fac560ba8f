import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { Control } from '#dist/copy/control/control.js';
import { copy } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { fakeDevice, firstDifference, pattern } from '../../../support/fake-device.js';
import { serveDevice } from '../../../support/nbd-server.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';
import { turns } from '../../../support/turns.js';

const PAGE = 4096;
const SIZE = 256 * PAGE;
const { capabilities } = fakeDevice(1);
const folder = temporaryFolder();

const turn = () => turns(1);

/** A source full of data and a target, either of which may be changed. */
async function devices(write?: () => Promise<void>) {
  const source = fakeDevice(SIZE, { capabilities: { ...capabilities, exactStatus: false } });
  await source.write(0, pattern(SIZE));
  const memory = fakeDevice(SIZE);
  let writes = 0;
  const target = fakeDevice(SIZE, {
    write: async (offset, bytes) => {
      writes++;
      await (write ?? turn)();
      await memory.write(offset, bytes);
    },
  });
  return { source, target, memory, count: () => writes };
}

describe('a control', () => {
  it('wakes another thread that waits, which hears its port meanwhile', async () => {
    const control = Control.create(1);
    control.pause();
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      parentPort.on('message', () => parentPort.postMessage('heard'));
      import(workerData.url).then(async ({ Control }) => {
        const control = new Control(workerData.memory);
        parentPort.postMessage('waits');
        parentPort.postMessage(await control.mayGo() ? 'goes' : 'stops');
        parentPort.postMessage(await control.mayMove(1e9) && await control.mayMove(1) ? 'goes' : 'stops');
        process.exit();
      });`;
    const url = import.meta.resolve('#dist/copy/control/control.js');
    const workerData = { url, memory: control.memory };
    const worker = new Worker(code, { eval: true, workerData });
    const words: string[] = [];
    const told = (word: string) =>
      new Promise<void>((resolve) => {
        const look = (heard: string) => {
          if (words.push(heard) && heard === word) resolve();
          else worker.once('message', look);
        };
        worker.once('message', look);
      });
    await told('waits');
    const heard = told('heard');
    worker.postMessage('are you there?');
    await heard;
    control.setRate(1);
    const goes = told('goes');
    control.resume();
    await goes;
    const stops = told('stops');
    control.stop();
    await stops;
    expect(words).toEqual(['waits', 'heard', 'goes', 'stops']);
    await worker.terminate();
  });

  it('keeps the counters of all threads apart and adds them up', () => {
    const control = Control.create(3);
    for (const row of [0, 1, 2]) {
      const counters = new Control(control.memory).row(row);
      counters.movedBytes += 2 ** 40;
      counters.retries += row;
      counters.leftOutBytes = 5;
    }
    expect(control.total()).toEqual({
      movedBytes: 3 * 2 ** 40,
      zeroedBytes: 0,
      skippedBytes: 0,
      leftOutBytes: 15,
      requests: 0,
      retries: 3,
    });
  });
});

describe('a copy', () => {
  it('that is paused finishes what is in flight and begins nothing more until it is resumed', async () => {
    const { source, target, memory, count } = await devices();
    const job = copy({ source, target, requestSize: PAGE, requests: 4 });
    const events: string[] = [];
    job.on('paused', () => events.push('paused')).on('resumed', () => events.push('resumed'));
    while (job.state === 'running' && count() < 10) await turn();
    job.pause();
    job.pause();
    expect(job.progress()).toMatchObject({ state: 'paused', phase: 'move' });
    const atPause = count();
    await turns(50);
    const then = count();
    expect(then - atPause).toBeLessThanOrEqual(4);
    await turns(50);
    expect(count()).toBe(then);
    expect(job.progress().doneBytes).toBe(then * PAGE);
    job.resume();
    job.resume();
    await job;
    expect(events).toEqual(['paused', 'resumed']);
    expect(await firstDifference(source, memory)).toBe(-1);
  });

  it('may be paused before it has begun, and while it zeroes', async () => {
    const [source, target] = [
      fakeDevice(SIZE),
      fakeDevice(SIZE, {
        capabilities: { ...capabilities, knownZero: false, fastZero: false, contexts: [] },
      }),
    ];
    const job = copy({ source, target });
    job.pause();
    await expect.poll(() => job.progress().phase).toBe('zero');
    await turns(50);
    expect(job.progress()).toMatchObject({ state: 'paused', phase: 'zero', doneBytes: 0 });
    job.resume();
    expect(await job).toMatchObject({ zeroedBytes: SIZE });
  });

  it('that is stopped says so, having finished and flushed what was in flight', async () => {
    let [inFlight, flushed] = [0, false];
    const { source, target, memory, count } = await devices(async () => {
      inFlight++;
      await turn();
      inFlight--;
    });
    const flush = target.flush.bind(target);
    target.flush = async (options) => {
      expect(inFlight).toBe(0);
      flushed = true;
      await flush(options);
    };
    const job = copy({ source, target, requestSize: PAGE, requests: 4 });
    while (job.state === 'running' && count() < 10) await turn();
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED', name: 'LacunaError' });
    expect(flushed).toBe(true);
    expect(job.progress().doneBytes).toBe(count() * PAGE);
    expect(count()).toBeLessThan(SIZE / PAGE);
    expect(await firstDifference(source, memory)).toBe(count() * PAGE);
  });

  it('that is stopped does not say that all was finished where something failed', async () => {
    const { source, target, count } = await devices();
    const write = target.write.bind(target);
    target.write = async (...args) => {
      await write(...args);
      if (count() < 10) return;
      job.stop();
      throw new LacunaError('ERR_DEVICE_IO', 'the cable was pulled');
    };
    const job = copy({ source, target, requestSize: PAGE, threads: 0 });
    const error = (await job.catch((failure) => failure)) as LacunaError;
    expect(error).toMatchObject({ code: 'ERR_JOB_STOPPED', cause: { code: 'ERR_DEVICE_IO' } });
    expect(error.message).toMatch(/something had failed: .*the cable was pulled/);
    expect(error.message).not.toContain('has been finished');
  });

  it.each(['paused', 'slowed'])('can be stopped, or aborted, while it is %s', async (how) => {
    for (const end of ['stop', 'abort']) {
      const { source, target } = await devices();
      const abort = new AbortController();
      const options = { source, target, requestSize: PAGE, signal: abort.signal };
      const job = copy({ ...options, ...(how === 'slowed' && { rate: 1 }) });
      if (how === 'paused') job.pause();
      await expect.poll(() => job.progress().phase).toBe('move');
      await turns(50);
      if (end === 'stop') job.stop();
      else abort.abort();
      const code = end === 'stop' ? 'ERR_JOB_STOPPED' : 'ERR_ABORTED';
      await expect(job).rejects.toMatchObject({ code });
    }
  });

  it('that is stopped before it knows what to do leaves the target alone', async () => {
    const { source, target, count } = await devices();
    const job = copy({ source, target });
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(count()).toBe(0);
  });

  it('that is stopped while it connects does not wait for a server that says nothing', async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const job = copy({ source: `nbd://127.0.0.1:${port}`, target: fakeDevice(SIZE) });
    const [peer] = (await once(server, 'connection')) as [Socket];
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    peer.destroy();
    server.close();
  });

  it.each([0, 2])(
    'can be paused, resumed and ended while it verifies (threads: %s)',
    async (threads) => {
      const path = (name: string) => join(folder, `${name}-${threads}.raw`);
      await copy({ source: (await devices()).source, target: path('source') });
      const content = await openDevice(path('source'));
      const slow = fakeDevice(SIZE, {
        capabilities: { ...capabilities, contexts: [] },
        read: async (offset, bytes) => {
          await sleep(1);
          await content.read(offset, bytes);
        },
      });
      // Other threads read it through this one, so that they cannot be done before it looks again.
      const served = await serveDevice(slow);
      for (const how of ['resume', 'stop', 'abort']) {
        const abort = new AbortController();
        const files = { source: threads ? served.uri : slow, target: path(how) };
        const options = { ...files, threads, requestSize: PAGE, requests: 4, verify: true };
        const job = copy({ ...options, signal: abort.signal });
        while (job.state === 'running' && job.progress().phase !== 'verify') await turn();
        job.pause();
        const atPause = job.progress();
        expect(atPause).toMatchObject({ phase: 'verify', state: 'paused' });
        // What is in flight may still come in; one that went on would end meanwhile.
        await sleep(500);
        const { phase, state, doneBytes } = job.progress();
        expect([phase, state]).toEqual(['verify', 'paused']);
        const inFlight = Math.max(1, threads) * 4 * PAGE;
        expect(doneBytes - atPause.doneBytes).toBeLessThanOrEqual(inFlight);
        if (how === 'resume') {
          job.resume();
          expect((await job).verifiedBytes).toBe(SIZE);
          continue;
        }
        if (how === 'stop') job.stop();
        else abort.abort();
        const code = how === 'stop' ? 'ERR_JOB_STOPPED' : 'ERR_ABORTED';
        await expect(job).rejects.toMatchObject({ code });
      }
      await content.close();
    },
  );

  it('refuses what makes no sense, before it opens anything', () => {
    const devices = { source: '/nowhere/a.raw', target: '/nowhere/b.raw' };
    expect(() => copy({ ...devices, detectZeroes: 'yes' as never })).toThrow(TypeError);
    expect(() => copy({ ...devices, preallocation: 'all' as never })).toThrow(TypeError);
    expect(() => copy({ ...devices, resume: '' })).toThrow(TypeError);
    for (const rate of [0.5, Number.NaN, 1e300]) {
      expect(() => copy({ ...devices, rate })).toThrow(RangeError);
    }
  });

  it('that is nearly stood still by its rate goes on at once when that is taken away', async () => {
    const { source, target, memory } = await devices();
    const job = copy({ source, target, rate: 1, requestSize: PAGE });
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(job.progress().doneBytes).toBeLessThanOrEqual(PAGE);
    job.setRate(undefined);
    await job;
    expect(await firstDifference(source, memory)).toBe(-1);
    expect(() => job.setRate(0)).toThrow(RangeError);
    expect(() => job.setRate(Number.NaN)).toThrow(RangeError);
    expect(() => copy({ source, target, rate: -1 })).toThrow(RangeError);
  });

  it('keeps its process alive while it is paused', async () => {
    const { execFileSync } = await import('node:child_process');
    const script = `
      import { copy } from 'lacuna';
      const job = copy({ source: { driver: 'null', size: 2 ** 30 }, target: 'null:' });
      job.pause();
      setTimeout(() => job.resume(), 300).unref();
      setTimeout(() => { console.log('late'); process.exit(); }, 300000).unref();
      console.log((await job).size);`;
    const text = execFileSync(process.execPath, ['--input-type=module', '-e', script]);
    expect(text.toString()).toBe(`${2 ** 30}\n`);
  });

  it('tells its progress as events, with rate and time left, to the end', async () => {
    const { source, target } = await devices();
    const states: unknown[] = [];
    const job = copy({ source, target, requestSize: PAGE });
    const seen = (progress: unknown) => states.push(progress);
    job.on('progress', seen);
    await job;
    await turn();
    job.off('progress', seen);
    expect(states.at(-1)).toMatchObject({ phase: 'done', state: 'done', doneBytes: SIZE });
  });

  it('reports how it went', async () => {
    const { source, target } = await devices();
    const report = await copy({ source, target, rate: SIZE });
    // However soon it was over.
    expect(report.rate.bytesPerSecond.some((rate) => rate > 0)).toBe(true);
    const { rate: soon } = await copy({ source, target });
    expect(soon.bytesPerSecond.length).toBeGreaterThan(0);
    expect(report).toMatchObject({
      leftOutBytes: 0,
      retries: 0,
      errors: [],
      moreErrors: 0,
      totals: { size: SIZE, dataBytes: SIZE, holeBytes: 0, zeroBytes: 0, cleanBytes: 0 },
      rate: { stepMs: 1000 },
    });
    expect(report.peakMemoryBytes).toBeGreaterThan(2 ** 20);
  });
});

describe('a listener that throws', () => {
  /** What nobody caught while some work was done. */
  async function uncaughtDuring(work: () => Promise<unknown>): Promise<unknown[]> {
    const uncaught: unknown[] = [];
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error));
    try {
      await work();
      await turns(20);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const other of others) process.on('uncaughtException', other);
    }
    return uncaught;
  }

  it('is an exception that nobody caught, and no failure of the copy', async () => {
    const source = fakeDevice(64 * 1024);
    await source.write(0, pattern(64 * 1024));
    const uncaught = await uncaughtDuring(async () => {
      const job = copy({ source, target: fakeDevice(64 * 1024), threads: 0 });
      job.on('progress', () => {
        throw new Error('wrong listener');
      });
      expect((await job).movedBytes).toBe(64 * 1024);
    });
    expect(uncaught.length).toBeGreaterThan(0);
    expect(String(uncaught[0])).toMatch('wrong listener');
  });

  it('fails the call that has made the event happen', async () => {
    const job = copy({ source: fakeDevice(4096), target: fakeDevice(4096), threads: 0 });
    job.on('paused', () => {
      throw new Error('wrong listener');
    });
    expect(() => job.pause()).toThrow('wrong listener');
    job.resume();
    await job;
  });
});
