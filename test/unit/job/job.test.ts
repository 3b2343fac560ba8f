import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { LacunaError } from '#dist/errors/index.js';
import { Job, type JobControl, type JobProgress } from '#dist/job/index.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));
const failure = new LacunaError('ERR_DEVICE_IO', 'the disk is full');

/** Work in `pieces` of 10 bytes, each of which takes a turn of the event loop. */
function working(
  pieces: number,
  {
    piece = turn,
    ...options
  }: {
    piece?: (done: number, control: JobControl) => unknown;
    rate?: number;
    signal?: AbortSignal;
  } = {},
) {
  let done = 0;
  const job = new Job<number>({
    what: 'a test',
    ...options,
    work: async (control) => {
      while (done < pieces) {
        await control.next(10);
        await piece(done, control);
        done++;
      }
      return done;
    },
    counted: () => ({ totalBytes: pieces * 10, doneBytes: done * 10 }),
  });
  return { job, done: () => done };
}

/** Resolves when the work has come so far. */
async function until(done: () => number, count: number): Promise<void> {
  while (done() < count) await turn();
}

describe('a job', () => {
  it('that ends by itself is done, and gives its report', async () => {
    const { job } = working(3);
    expect(job.state).toBe('running');
    expect(await job).toBe(3);
    expect(job.state).toBe('done');
    expect(job.progress()).toMatchObject({ state: 'done', totalBytes: 30, doneBytes: 30 });
  });

  it('begins nothing more while it is paused, and goes on when it is resumed', async () => {
    const { job, done } = working(100);
    const events: string[] = [];
    job.on('paused', () => events.push('paused')).on('resumed', () => events.push('resumed'));
    await until(done, 5);
    job.pause();
    job.pause();
    for (let i = 0; i < 5; i++) await turn();
    const then = done();
    for (let i = 0; i < 50; i++) await turn();
    expect([done(), job.state]).toEqual([then, 'paused']);
    job.resume();
    job.resume();
    expect(await job).toBe(100);
    expect(events).toEqual(['paused', 'resumed']);
  });

  it('that is stopped finishes its piece, and fails with a code of its own', async () => {
    const { job, done } = working(100);
    await until(done, 5);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED', name: 'LacunaError' });
    expect(job.progress()).toMatchObject({ state: 'stopped', error: { code: 'ERR_JOB_STOPPED' } });
    job.pause();
    job.resume();
    expect(job.state).toBe('stopped');
  });

  it('that is stopped or aborted while it is paused, or held back by its rate, ends', async () => {
    for (const hold of ['pause', 'rate']) {
      for (const code of ['ERR_JOB_STOPPED', 'ERR_ABORTED']) {
        const abort = new AbortController();
        const { job, done } = working(100, { signal: abort.signal });
        await until(done, 5);
        if (hold === 'pause') job.pause();
        else job.setRate(1);
        for (let i = 0; i < 5; i++) await turn();
        if (code === 'ERR_ABORTED') abort.abort();
        else job.stop();
        await expect(job).rejects.toMatchObject({ code });
        expect(job.state).toBe('stopped');
      }
    }
  });

  it('that is stopped is done all the same where it was at its end', async () => {
    const { job } = working(1, { piece: () => job.stop() });
    expect(await job).toBe(1);
    expect(job.state).toBe('done');
  });

  it('begins nothing where its signal has fired before', async () => {
    const { job, done } = working(3, { signal: AbortSignal.abort('enough') });
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'enough' });
    expect([done(), job.state]).toEqual([0, 'stopped']);
  });

  it('leaves nothing behind with its signal, which may outlive many jobs', async () => {
    const { signal } = new AbortController();
    await working(3, { signal }).job;
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    // Where Node keeps what AbortSignal.any has made of a signal.
    const key = Object.getOwnPropertySymbols(signal).find((of) =>
      /depend[ae]nt/i.test(`${of.description}`),
    );
    expect((key && Reflect.get(signal, key)?.size) || 0).toBe(0);
  });

  it('that is told to end by its signal says so, whatever a stop before has led to', async () => {
    const abort = new AbortController();
    const { job, done } = working(100, {
      signal: abort.signal,
      piece: async (i) => {
        await turn();
        if (i === 5) abort.abort();
      },
    });
    await until(done, 2);
    job.pause();
    job.stop();
    abort.abort();
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('that fails keeps its error, and an end that was asked for later does not change it', async () => {
    const { job } = working(3, {
      piece: () => {
        job.stop();
        throw failure;
      },
    });
    await expect(job).rejects.toBe(failure);
    expect(job.progress()).toMatchObject({ state: 'failed', error: failure });
  });

  it('keeps to a rate, which can be lifted at any time', async () => {
    const { job, done } = working(100, { rate: 1 });
    // The first piece has nobody before it.
    await until(done, 1);
    for (let i = 0; i < 20; i++) await turn();
    expect(done()).toBe(1);
    job.setRate(undefined);
    expect(await job).toBe(100);
  });

  it('refuses invalid rates, unknown events and unknown options', async () => {
    expect(() => working(1, { rate: 0 })).toThrow(RangeError);
    const { job } = working(1);
    expect(() => job.setRate(Number.NaN)).toThrow(RangeError);
    expect(() => job.on('stopped' as never, () => {})).toThrow(/a test has no event "stopped"/);
    expect(() => new Job({ what: 'a test', job: 1 } as never)).toThrow(/no option "job"/);
    await job;
  });
});

describe('a failure that waits for a human', () => {
  const waiting = () => {
    let failures = 0;
    return working(3, {
      piece: async (i, control) => {
        await turn();
        while (i === 1 && failures < 2) {
          failures++;
          await control.waitAbout(failure);
        }
      },
    });
  };

  it('pauses the job with the error, until it is resumed and tries again', async () => {
    const { job } = waiting();
    const told: unknown[] = [];
    job.on('paused', (error) => {
      told.push(error, job.progress().state, job.progress().error);
      setImmediate(() => job.resume());
    });
    job.on('resumed', () => told.push(job.progress().error));
    expect(await job).toBe(3);
    const once = [failure, 'paused', failure, undefined];
    expect(told).toEqual([...once, ...once]);
  });

  it('may be resumed by the listener that is told of it', async () => {
    const { job } = waiting();
    job.on('paused', () => job.resume());
    expect(await job).toBe(3);
  });

  it('is the cause where the job is stopped then', async () => {
    const { job } = waiting();
    job.on('paused', () => job.stop());
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED', cause: failure });
    expect(job.state).toBe('stopped');
  });

  it('is the cause where the job was asked to stop before', async () => {
    const { job } = working(3, {
      piece: (_, control) => {
        job.stop();
        return control.waitAbout(failure);
      },
    });
    let isTold = false;
    job.on('paused', () => {
      isTold = true;
    });
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED', cause: failure });
    expect(isTold).toBe(false);
  });
});

describe('what a job tells', () => {
  it('is no failure that nobody hears of where one loop was left and another goes on', async () => {
    let fail = (_: Error) => {};
    const job = new Job<number>({
      what: 'a test',
      work: () =>
        new Promise((_, reject) => {
          fail = reject;
        }),
      counted: () => ({ totalBytes: 0, doneBytes: 0 }),
    });
    const looping = (async () => {
      for await (const _ of job);
    })();
    for await (const _ of job) break;
    // An unhandled rejection would fail the run.
    fail(failure);
    await expect(looping).rejects.toBe(failure);
    await turn();
  });

  it('is no failure that nobody hears of where a loop was left behind it, and the job is awaited next', async () => {
    const job = new Job<number>({
      what: 'a test',
      work: () => Promise.reject(failure),
      counted: () => ({ totalBytes: 0, doneBytes: 0 }),
    });
    for await (const { state } of job) if (state === 'failed') break;
    // An unhandled rejection would fail the run.
    await expect(job).rejects.toBe(failure);
    await turn();
  });

  it('ends with the job, whatever its work has left behind', async () => {
    const { job, done } = working(1, {
      piece: (_, control) => {
        setImmediate(() => void control.waitAbout(failure).catch(() => {}));
      },
    });
    const events: string[] = [];
    job.on('done', () => events.push('done')).on('paused', () => events.push('paused'));
    await job;
    await until(done, 1);
    await turn();
    await turn();
    expect(events).toEqual(['done']);
    expect(job.progress().error).toBeUndefined();
  });

  it('comes to a loop moment by moment, the last one when it has ended', async () => {
    const { job } = working(3);
    const moments: JobProgress[] = [];
    for await (const moment of job) moments.push(moment);
    expect(moments[0]).toMatchObject({ state: 'running' });
    expect(moments.at(-1)).toMatchObject({ state: 'done', doneBytes: 30 });
  });

  it('makes a loop fail as the job does', async () => {
    const { job } = working(1, {
      piece: () => {
        throw failure;
      },
    });
    const states: string[] = [];
    const looping = (async () => {
      for await (const { state } of job) states.push(state);
    })();
    await expect(looping).rejects.toBe(failure);
    expect(states.at(-1)).toBe('failed');
  });

  it('ends with the last progress, then the report', async () => {
    const { job } = working(3);
    const told: unknown[] = [];
    job.on('progress', ({ state, doneBytes }) => told.push(`${state} ${doneBytes}`));
    job.on('done', (report) => told.push(report));
    await job;
    await turn();
    expect(told.slice(-2)).toEqual(['done 30', 3]);
  });

  it('has no time left for a job that has ended early', async () => {
    const { job, done } = working(100);
    await until(done, 5);
    expect(job.progress().remainingMs).toBeGreaterThan(0);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    const { bytesPerSecond, ...rest } = job.progress();
    expect(bytesPerSecond).toBeGreaterThan(0);
    expect('remainingMs' in rest).toBe(false);
  });

  it('counts what this run has done, and not what earlier ones had', async () => {
    let done = 1e9;
    const job = new Job<number, JobProgress & { resumedBytes: number }>({
      what: 'a test',
      work: async (control) => {
        await control.next();
        done += 10;
        return done;
      },
      counted: () => ({ totalBytes: 2e9, doneBytes: done, resumedBytes: 1e9 }),
    });
    expect(job.progress()).toMatchObject({ doneBytes: 1e9, bytesPerSecond: 0 });
    expect('remainingMs' in job.progress()).toBe(false);
    await job;
    expect(job.progress().resumedBytes).toBe(1e9);
  });
});

describe('a job that does a part of another one', () => {
  const nested = (part: () => Job<number>, options: { signal?: AbortSignal } = {}) => {
    let made: Job<number> | undefined;
    const job = new Job<number>({
      what: 'a test',
      ...options,
      work: (control) => {
        made = part();
        return control.run(made);
      },
      counted: () => made?.progress() ?? { totalBytes: 0, doneBytes: 0 },
    });
    return { job, part: () => made! };
  };

  it('is paused, resumed and stopped with it', async () => {
    const inner = working(100);
    const { job, part } = nested(() => inner.job);
    await until(inner.done, 5);
    job.pause();
    expect(part().state).toBe('paused');
    job.resume();
    expect(part().state).toBe('running');
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect([job.state, part().state]).toEqual(['stopped', 'stopped']);
  });

  it('ends with the signal of the other one, which says so', async () => {
    const abort = new AbortController();
    const inner = working(100);
    const { job } = nested(() => inner.job, { signal: abort.signal });
    await until(inner.done, 5);
    abort.abort();
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(job.state).toBe('stopped');
  });

  it('makes the other one wait for a human where it does, and go on with it', async () => {
    const inner = working(2, { piece: (i, control) => i === 1 && control.waitAbout(failure) });
    const { job, part } = nested(() => inner.job);
    const told: unknown[] = [];
    job.on('paused', (error) => {
      told.push(error, job.state, part().state);
      job.resume();
    });
    expect(await job).toBe(2);
    expect(told).toEqual([failure, 'paused', 'paused']);
  });

  it('begins as the other one is: paused, or limited', async () => {
    const rates: unknown[] = [];
    const calls: string[] = [];
    const part = (name: string) => ({
      pause: () => void calls.push(`${name} pauses`),
      resume: () => void calls.push(`${name} goes on`),
      stop: () => void calls.push(`${name} stops`),
      setRate: (rate: number | undefined) => void rates.push(`${name} ${rate}`),
    });
    const job = new Job<void>({
      what: 'a test',
      rate: 100,
      work: async (control) => {
        control.steer(part('first'));
        await control.next();
        const letGo = control.steer(part('second'));
        await control.next();
        letGo();
      },
      counted: () => ({ totalBytes: 0, doneBytes: 0 }),
    });
    job.pause();
    await turn();
    job.resume();
    await job;
    expect(calls).toEqual(['first pauses', 'first goes on']);
    // Shares of one rate, and all of it for the one that is left.
    expect(rates).toEqual(['first 100', 'first 50', 'second 50', 'first 100']);
  });

  it('keeps its own rate where the other one has none', async () => {
    const rates: unknown[] = [];
    const job = new Job<void>({
      what: 'a test',
      work: async (control) => {
        const ignore = () => {};
        const part = { pause: ignore, resume: ignore, stop: ignore };
        control.steer({ ...part, setRate: (rate) => void rates.push(rate) })();
      },
      counted: () => ({ totalBytes: 0, doneBytes: 0 }),
    });
    await job;
    expect(rates).toEqual([]);
  });

  it('loses the rate that it was begun with where that was taken away before', async () => {
    const rates: unknown[] = [];
    const job = new Job<void>({
      what: 'a test',
      rate: 100,
      work: async (control) => {
        await turn();
        const ignore = () => {};
        const part = { pause: ignore, resume: ignore, stop: ignore };
        control.steer({ ...part, setRate: (rate) => void rates.push(rate) })();
      },
      counted: () => ({ totalBytes: 0, doneBytes: 0 }),
    });
    job.setRate(undefined);
    await job;
    expect(rates).toEqual([undefined]);
  });
});
