/** What a copy tells of itself holds at every moment: no more is done than there is to do, and none of it is taken back. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type CopyJob, type CopyProgress, copy } from '#dist/copy/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SIZE = 200_000;
const folder = temporaryFolder();

/** Moments of a copy: one at each turn of the event loop. */
async function momentsOf(job: CopyJob): Promise<CopyProgress[]> {
  const moments: CopyProgress[] = [];
  let ended = false;
  const end = job.finally(() => {
    ended = true;
  });
  while (!ended) {
    moments.push(job.progress());
    await new Promise((resolve) => setImmediate(resolve));
  }
  await end;
  return [...moments, job.progress()];
}

it('holds for a copy that goes on from an earlier run, and is verified', async () => {
  const [source, target] = [fakeDevice(SIZE), fakeDevice(SIZE)];
  await source.write(0, pattern(SIZE));
  // Every request takes a turn of the event loop.
  const { read } = source;
  source.read = async (...args) => {
    await new Promise((resolve) => setImmediate(resolve));
    return await read.apply(source, args);
  };
  const resume = join(folder, 'resume');
  const how = { source, target, resume, requestSize: 4096, requests: 1, threads: 0, verify: true };
  const first = copy(how);
  while (first.progress().doneBytes < SIZE / 2) await new Promise((done) => setImmediate(done));
  first.stop();
  await expect(first).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });

  const moments = await momentsOf(copy(how));
  for (const { totalBytes, doneBytes, resumedBytes } of moments) {
    expect(doneBytes).toBeLessThanOrEqual(totalBytes);
    expect(resumedBytes).toBeLessThanOrEqual(doneBytes);
  }
  const last = moments.at(-1)!;
  expect(last).toMatchObject({ state: 'done', totalBytes: SIZE, doneBytes: SIZE });
  expect(last.resumedBytes).toBeGreaterThanOrEqual(SIZE / 2);
  for (const which of ['move', 'verify']) {
    const part = moments.filter(({ phase }) => phase === which);
    const done = part.map(({ doneBytes }) => doneBytes);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
    expect(new Set(done).size).toBeGreaterThan(3);
  }
});
