import { setImmediate } from 'node:timers/promises';
import { afterEach, expect, it, vi } from 'vitest';
import { Turns } from '#dist/util/index.js';

/** Longer than a turn of the event loop may last. */
const LONG_MS = 15;

/** Whether the event loop ran while a promise was pending. */
async function lets(pending: () => Promise<void>): Promise<boolean> {
  let ran = false;
  const loop = setImmediate().then(() => {
    ran = true;
  });
  await pending();
  const seen = ran;
  await loop;
  return seen;
}

afterEach(() => void vi.useRealTimers());

it('a long loop lets the event loop run when a turn was long, and begins another', async () => {
  // A clock that stands still, however long a busy machine takes.
  vi.useFakeTimers({ toFake: ['performance'] });
  const turns = new Turns();
  expect(await lets(() => turns.next()), 'at the beginning').toBe(false);
  for (const round of [1, 2]) {
    vi.advanceTimersByTime(LONG_MS);
    expect(await lets(() => turns.next()), `long turn ${round}`).toBe(true);
    expect(await lets(() => turns.next()), `right after it, ${round}`).toBe(false);
  }
});

it('a loop that awaits nothing else never keeps a timer waiting', async () => {
  let fired = false;
  setTimeout(() => {
    fired = true;
  }, 1);
  const turns = new Turns();
  while (!fired) await turns.next();
  expect(fired).toBe(true);
});
