import { createHash } from 'node:crypto';
import { firstSeed } from './long-run.js';

let made = 0;

/** Bytes that look random and do not compress: others in each call, and the same in every run with one seed. */
export function noise(length: number): Buffer {
  const name = `${firstSeed()} ${made++}`;
  return createHash('shake256', { outputLength: length }).update(name).digest();
}
