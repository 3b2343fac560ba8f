import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Arena } from 'lacuna/bitmap';
import { describe, type ExpectStatic, it } from 'vitest';

/** Where the lock of an arena is: ARENA_LOCK of assembly/layout.ts, as an index of 32-bit words. */
const LOCK = 64 / 4;

/** Takes the lock of a new arena as a kernel does, and lets another thread wait for it. */
async function heldArena(expect: ExpectStatic) {
  const arena = Arena.create({ maximumBytes: 2 ** 20 });
  const worker = new Worker(new URL('waiting.mjs', import.meta.url), { workerData: arena.shared });
  await once(worker, 'message');
  const words = new Int32Array(arena.shared.memory.buffer);
  assert.equal(Atomics.exchange(words, LOCK, 1), 0, 'this is the word of the lock');
  const began = performance.now();
  const answer = once(worker, 'message').then(([text]) => ({ text, answered: performance.now() }));
  worker.postMessage('begin');
  await expect.poll(() => Atomics.load(words, LOCK)).toBe(2);
  return { words, began, answer };
}

describe.concurrent('a thread that waits for a lock', () => {
  it('gets it at once when it is given back', async ({ expect }) => {
    let quickest = Number.POSITIVE_INFINITY;
    // A busy machine may let any one of them wait for the end of its second.
    for (let i = 0; i < 30 && quickest >= 0.9; i++) {
      const { words, answer } = await heldArena(expect);
      const given = performance.now();
      Atomics.store(words, LOCK, 0);
      Atomics.notify(words, LOCK, 1);
      const { text, answered } = await answer;
      // Where this thread did not run for so long that the other one takes it for dead.
      if (text === 'RuntimeError') continue;
      assert.equal(text, 'has it');
      quickest = Math.min(quickest, (answered - given) / 1000);
    }
    assert.ok(quickest < 0.9, `${quickest} s`);
  });

  // A thread of a process that was stopped wakes up like this: its time is over, whatever the word says.
  it('looks again when its wait has timed out, though nobody woke it', async ({ expect }) => {
    let text: unknown = 'RuntimeError';
    // Where this thread does not run for long, the other one takes it for dead.
    for (let i = 0; i < 5 && text === 'RuntimeError'; i++) {
      const { words, answer } = await heldArena(expect);
      // For it to fall asleep; it wakes up by itself once in a second, so any other time is as good.
      await sleep(100);
      Atomics.store(words, LOCK, 0);
      ({ text } = await answer);
    }
    assert.equal(text, 'has it');
  });

  it('traps in the end when the holder is dead', async ({ expect }) => {
    const { began, answer } = await heldArena(expect);
    const { text, answered } = await answer;
    const seconds = (answered - began) / 1000;
    assert.equal(text, 'RuntimeError');
    assert.ok(seconds > 8, `${seconds} s`);
  });
});
