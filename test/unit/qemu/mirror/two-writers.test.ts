/**
 * A copy and a mirror write to one device at the same time, and every request takes as long as chance will have it. In the end each
 * byte must be what the mirror has made of it last, where it has touched it at all, and else what the copy has read.
 */

import { expect, test } from 'vitest';
import { TwoWriters } from '#dist/qemu/mirror/two-writers.js';
import { WrittenBytes } from '#dist/qemu/mirror/written-bytes.js';
import { Random } from '#dist/testing/index.js';
import { contentOf, fakeDevice } from '../../../support/fake-device.js';
import { firstSeed, runsOr } from '../../../support/long-run.js';

const SIZE = 5 * 4096 + 512;
const NO_SIGNAL = new AbortController().signal;

/** A device whose changes wait until the test carries them out, in any order. */
function slowDevice(minimum: number) {
  const waiting: (() => void)[] = [];
  const turn = () => new Promise<void>((resolve) => void waiting.push(resolve));
  const memory = fakeDevice(SIZE);
  const device = fakeDevice(SIZE, {
    limits: { ...memory.limits, minimum },
    read: async (offset, target) => {
      await turn();
      await memory.read(offset, target);
    },
    write: async (offset, source) => {
      // A caller may use its bytes again only when the request has ended.
      await turn();
      await memory.write(offset, source);
    },
    zero: async (offset, length) => {
      await turn();
      await memory.zero(offset, length);
    },
  });
  return { device, memory, waiting };
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

async function meet(random: Random, minimum: number): Promise<void> {
  const { device, memory, waiting } = slowDevice(minimum);
  const writers = new TwoWriters(device);
  const side = writers.mirrorSide;
  const expected = Buffer.alloc(SIZE);
  const isMirrors = new Uint8Array(SIZE);
  const inFlight = new Set<{ offset: number; end: number }>();
  const all: Promise<void>[] = [];

  const range = () => {
    const offset = random.pick([0, 512, 4096, random.below(SIZE), 8192 - 1]);
    const length = random.pick([1, 2, 512, 4096, 8192, 1 + random.below(SIZE)]);
    return { offset, end: Math.min(SIZE, offset + length) };
  };

  function mirror(): void {
    const { offset, end } = range();
    // QEMU has no two requests for one place under way.
    if ([...inFlight].some((one) => one.offset < end && one.end > offset)) return;
    const length = end - offset;
    const place = { offset, end };
    inFlight.add(place);
    const kind = random.below(4);
    const bytes = kind < 2 ? Buffer.from(random.bytes(length)) : Buffer.alloc(length);
    expected.set(bytes, offset);
    isMirrors.fill(1, offset, end);
    const options = { unmap: random.below(2) === 0, fast: false, fua: false, signal: NO_SIGNAL };
    const done =
      kind < 2
        ? side.write(offset, bytes, { fua: false })
        : kind === 2
          ? side.zero(offset, length, options)
          : side.discard(offset, length, options);
    all.push(done.finally(() => void inFlight.delete(place)));
  }

  let copied = 0;
  function base(): void {
    const offset = copied;
    copied = Math.min(SIZE, offset + random.pick([512, 4096, 6000]));
    const length = copied - offset;
    const isZero = random.below(3) === 0;
    const bytes = isZero ? Buffer.alloc(length) : Buffer.from(random.bytes(length));
    for (let at = offset; at < copied; at++) if (!isMirrors[at]) expected[at] = bytes[at - offset];
    const { baseSide } = writers;
    all.push(isZero ? baseSide.zero(offset, length) : baseSide.write(offset, bytes));
  }

  while (copied < SIZE || waiting.length > 0 || inFlight.size > 0) {
    const step = random.below(4);
    if (step === 0 && copied < SIZE) base();
    else if (step === 1 && copied < SIZE) mirror();
    else if (waiting.length > 0) waiting.splice(random.below(waiting.length), 1)[0]();
    await tick();
  }
  await Promise.all(all);
  expect(Buffer.compare(await contentOf(memory), expected)).toBe(0);
  writers.endBase();
}

test.each([1, 512, 4096])(
  'a copy never overwrites what a mirror has written, zeroed or trimmed, on a device with blocks of %i bytes',
  async (minimum) => {
    const first = firstSeed();
    for (let seed = first; seed < first + runsOr(40); seed++) {
      await meet(new Random(seed), minimum).catch((error: Error) => {
        error.message += ` (LACUNA_SEED=${seed})`;
        throw error;
      });
    }
  },
);

test('a mirror tells QEMU that it takes requests of any byte, so that QEMU never fills up a short one', async () => {
  const { device } = slowDevice(4096);
  expect(new TwoWriters(device).mirrorSide.limits.minimum).toBe(1);
});

test('why a write of the mirror has failed is kept', async () => {
  const failing = fakeDevice(SIZE, {
    write: async () => {
      throw new Error('no room');
    },
  });
  const writers = new TwoWriters(failing);
  await expect(writers.mirrorSide.write(0, Buffer.alloc(1), { fua: false })).rejects.toThrow();
  expect(writers.failure).toMatchObject({ message: 'no room' });
  expect(writers.writes).toBe(0);
});

test('a set of written bytes is exact to the byte', () => {
  const first = firstSeed();
  for (let seed = first; seed < first + runsOr(200); seed++) {
    const random = new Random(seed);
    const set = new WrittenBytes(SIZE);
    const model = new Uint8Array(SIZE);
    for (let step = 0; step < 30; step++) {
      const offset = random.pick([random.below(SIZE), 4096 * random.below(5)]);
      const length = Math.min(SIZE - offset, random.pick([1, 100, 4096, 9000, SIZE]));
      if (random.below(3) > 0 && length < SIZE) {
        set.add(offset, length);
        model.fill(1, offset, offset + length);
      }
      const missing = Buffer.alloc(length, 1);
      for (const piece of set.missing(offset, length)) {
        const at = piece.offset - offset;
        missing.fill(0, at, at + piece.length);
      }
      const expected = model.subarray(offset, offset + length);
      expect(Buffer.compare(missing, expected), `LACUNA_SEED=${seed}`).toBe(0);
    }
    set.free();
  }
});
