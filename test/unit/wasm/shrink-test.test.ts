import { createCipheriv } from 'node:crypto';
import { deflateRawSync } from 'node:zlib';
import { Arena } from 'lacuna/bitmap';
import { describe, expect, test } from 'vitest';
import { ShrinkTest } from '#dist/wasm/index.js';
import { Random } from '../bitmap/random.js';

const KiB = 1024;
const CLUSTER = 64 * KiB;

const random = new Random(Random.seed());

/** Bytes that nothing makes shorter. */
function noise(length: number): Buffer {
  const key = Buffer.alloc(16);
  for (let i = 0; i < 16; i += 4) key.writeUInt32LE(random.between(0, 2 ** 32 - 1), i);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** Ways to put into noise, in front of `end`, what makes it shorter by about `length` bytes. */
const PLANTS: Record<string, (bytes: Buffer, length: number, end: number) => void> = {
  'a run of one value': (bytes, length, end) => bytes.fill(0x20, end - length, end),
  'a copy of what came just before': (bytes, length, end) =>
    bytes.copyWithin(end - length, end - 2 * length, end - length),
  'a copy from afar': (bytes, length, end) =>
    bytes.copyWithin(end - length, end - 3500, end - 3500 + length),
  'many short copies': (bytes, length, end) => {
    for (let at = end - 16 * length; at < end; at += 128) bytes.copyWithin(at, at - 108, at - 100);
  },
  'a value that is frequent': (bytes, length, end) => {
    const step = Math.floor(end / (2 * length));
    for (let at = 0; at < end; at += step) bytes[at] = 0x41;
  },
};

/** By how much deflate makes a cluster shorter, at most to nothing. */
function saving(bytes: Buffer): number {
  const options = { windowBits: 12, memLevel: 9, chunkSize: 2 * bytes.length };
  return 1 - deflateRawSync(bytes, options).length / bytes.length;
}

describe.each(['simd', 'scalar'] as const)('with %s kernels', (variant) => {
  const arena = Arena.create({ variant, maximumBytes: 1024 * KiB });
  const shrinkTest = new ShrinkTest(arena);
  const about = `LACUNA_SEED=${random.seed}`;

  test.each([4, 64, 2048])('noise of %i KiB is given up, also when it comes again', (size) => {
    for (let i = 0; i < 4; i++) {
      const bytes = noise(size * KiB);
      expect(shrinkTest.mayShrink(bytes), about).toBe(false);
      expect(shrinkTest.mayShrink(bytes), about).toBe(false);
    }
  });

  test('what is too short to tell is tried', () => {
    expect(shrinkTest.mayShrink(noise(2 * KiB))).toBe(true);
  });

  test.each(Object.keys(PLANTS))('one percent is found anywhere in noise: %s', (plant) => {
    for (let end = 20 * KiB; end <= CLUSTER; end += 4 * KiB) {
      const bytes = noise(CLUSTER);
      PLANTS[plant](bytes, Math.round(CLUSTER / 100), end);
      expect(shrinkTest.mayShrink(bytes), `before ${end}, ${about}`).toBe(true);
    }
  });

  test('what is given up would become shorter by less than one percent', () => {
    const outcomes = { tried: 0, 'given up': 0 };
    for (let i = 0; i < 300; i++) {
      const bytes = noise(CLUSTER);
      const plants = random.between(1, 3);
      for (let n = 0; n < plants; n++) {
        const plant = PLANTS[random.pick(Object.keys(PLANTS))];
        plant(bytes, random.between(8, 400), random.between(20 * KiB, CLUSTER));
      }
      const tried = shrinkTest.mayShrink(bytes);
      outcomes[tried ? 'tried' : 'given up']++;
      if (!tried) expect(saving(bytes), about).toBeLessThan(0.01);
    }
    expect(outcomes.tried, about).toBeGreaterThan(20);
    expect(outcomes['given up'], about).toBeGreaterThan(20);
  });
});
