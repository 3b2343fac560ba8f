import { createHash } from 'node:crypto';
import { LacunaError } from '../../errors/index.js';
import { Bits } from '../../wasm/index.js';

/** Granules in one 64-bit word: the unit in which serialized bitmaps are cut. */
const WORD = 64;

/** Bits as little-endian 64-bit words; see Bitmap.serialize. */
export function serialize(bits: Bits, offset: number, length: number): Uint8Array {
  const frozen = bits.snapshot();
  try {
    const { from, words } = chunk(frozen, offset, length);
    const bytes = new Uint8Array(words * 8);
    let done = 0;
    frozen.readWords(from, words, (part) => {
      bytes.set(part, done);
      done += part.length;
    });
    return bytes;
  } finally {
    frozen.free();
  }
}

/** SHA-256 over the whole serialization, in hexadecimal digits. */
export function digest(bits: Bits): string {
  const hash = createHash('sha256');
  const frozen = bits.snapshot();
  try {
    frozen.readWords(0, chunk(frozen, 0, frozen.size).words, (part) => hash.update(part));
  } finally {
    frozen.free();
  }
  return hash.digest('hex');
}

/** Replaces the granules that `bytes` speaks of, all or none. */
export function deserialize(bits: Bits, bytes: Uint8Array, offset: number): void {
  const granularity = 2 ** bits.shift;
  const size = bits.size;
  const available = chunk(bits, offset, size - offset).words;
  if (bytes.length % 8 !== 0 || bytes.length / 8 > available) {
    throw new LacunaError(
      'ERR_BITMAP_CORRUPT',
      `${bytes.length} serialized bytes at offset ${offset} do not fit a bitmap of ${size} bytes ` +
        `and granularity ${granularity}: at most ${available} words of 8 bytes can follow`,
      { offset, length: bytes.length },
    );
  }
  const from = offset / granularity;
  const scratch = Bits.create(bits.arena, size, bits.shift);
  try {
    scratch.writeWords(from, bytes);
    bits.replace(scratch, from, Math.min(from + bytes.length * 8, Math.ceil(size / granularity)));
  } finally {
    scratch.free();
  }
}

/** The granule and the number of words that a range in bytes means. */
function chunk(bits: Bits, offset: number, length: number): { from: number; words: number } {
  const unit = 2 ** bits.shift * WORD;
  const { size } = bits;
  const end = offset + length;
  if (offset > size || end > size) {
    throw new RangeError(`offset ${offset} and length ${length} reach behind the size of ${size}`);
  }
  if ((offset % unit !== 0 && offset !== size) || (end % unit !== 0 && end !== size)) {
    throw new RangeError(
      `offset ${offset} and length ${length} must be multiples of ${unit} (64 granules), ` +
        'or reach the end',
    );
  }
  return { from: offset / 2 ** bits.shift, words: Math.ceil(length / unit) };
}
