import { setImmediate } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { Turns } from '#dist/util/index.js';

/** Longer than a turn of the event loop may last. */
const LONG_MS = 15;

function work(duration: number): void {
  const began = performance.now();
  while (performance.now() - began < duration);
}

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

it('lets the event loop run when a turn was long, and begins another', async () => {
  const turns = new Turns();
  expect(await lets(() => turns.next()), 'at the beginning').toBe(false);
  for (const round of [1, 2]) {
    work(LONG_MS);
    expect(await lets(() => turns.next()), `long turn ${round}`).toBe(true);
    expect(await lets(() => turns.next()), `right after it, ${round}`).toBe(false);
  }
});

it('never keeps a timer waiting for a loop that awaits nothing else', async () => {
  let fired = false;
  setTimeout(() => {
    fired = true;
  }, 1);
  const turns = new Turns();
  const began = performance.now();
  while (!fired && performance.now() - began < 5000) await turns.next();
  expect(fired).toBe(true);
});
