import { expect, it } from 'vitest';
import { type Hold, RangeLock } from '#dist/block/contract/range-lock.js';

async function isGranted(hold: Hold): Promise<boolean> {
  if (hold.ready === undefined) return true;
  return Promise.race([hold.ready.then(() => true), new Promise(setImmediate).then(() => false)]);
}

it('a range lock grants at once what nobody else holds', () => {
  const lock = new RangeLock();
  lock.acquire(0, 10, true);
  expect(lock.acquire(10, 20, true).ready).toBeUndefined();
  expect(lock.acquire(20, 30, false).ready).toBeUndefined();
});

it('a range lock lets whole writes share a range', () => {
  const lock = new RangeLock();
  lock.acquire(0, 10, false);
  expect(lock.acquire(5, 15, false).ready).toBeUndefined();
});

it('a range lock keeps a range alone from everybody else, in both orders', async () => {
  const lock = new RangeLock();
  const first = lock.acquire(0, 10, true);
  const shared = lock.acquire(9, 20, false);
  const alone = lock.acquire(15, 16, true);
  expect(await isGranted(shared)).toBe(false);
  lock.release(first);
  expect(await isGranted(shared)).toBe(true);
  expect(await isGranted(alone)).toBe(false);
  lock.release(shared);
  expect(await isGranted(alone)).toBe(true);
});

it('a range lock grants in the order of arrival, so that nobody starves', async () => {
  const lock = new RangeLock();
  const first = lock.acquire(0, 10, false);
  const alone = lock.acquire(0, 10, true);
  const late = lock.acquire(0, 10, false);
  expect(await isGranted(late)).toBe(false);
  lock.release(first);
  expect(await isGranted(alone)).toBe(true);
  expect(await isGranted(late)).toBe(false);
  lock.release(alone);
  expect(await isGranted(late)).toBe(true);
});

it('a range lock lets others go on when a hold is given up before it is granted', async () => {
  const lock = new RangeLock();
  const first = lock.acquire(0, 10, true);
  const second = lock.acquire(0, 10, true);
  const third = lock.acquire(0, 10, true);
  lock.release(second);
  expect(await isGranted(third)).toBe(false);
  lock.release(first);
  expect(await isGranted(third)).toBe(true);
});

it('a range lock is idle when all that was held has been left', async () => {
  const lock = new RangeLock();
  await lock.idle;
  const holds = [lock.acquire(0, 10, true), lock.acquire(0, 10, true)];
  let isIdle = false;
  const idle = lock.idle.then(() => {
    isIdle = true;
  });
  lock.release(holds[0]);
  await new Promise(setImmediate);
  expect(isIdle).toBe(false);
  lock.release(holds[1]);
  await idle;
});
