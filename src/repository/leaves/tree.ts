/** The tree of a disk's digest, in parts of 256 blocks. docs/digest.md defines the tree. */
import {
  DIGEST_BLOCK,
  DIGEST_BYTES,
  digestText,
  parentOf,
  zeroDigest,
} from '../../copy/move/index.js';

export { DIGEST_BLOCK, DIGEST_BYTES };

/** Height of a part in the tree. */
const PART_HEIGHT = 8;
/** Blocks of a part. */
export const PART_BLOCKS = 2 ** PART_HEIGHT;
/** Bytes of the digests of a part. */
export const PART_BYTES = PART_BLOCKS * DIGEST_BYTES;

/** The digest of a block of zeroes. */
export const ZERO_LEAF = zeroDigest(0);
const ZERO_PAIR = Buffer.concat([ZERO_LEAF, ZERO_LEAF]);
/** The digest of a part of zeroes. */
const ZERO_PART = zeroDigest(PART_HEIGHT);

/** Blocks of a disk; a disk of no bytes has none here. */
export function blocksOf(size: number): number {
  return Math.ceil(size / DIGEST_BLOCK);
}

/** Digests of a part of zeroes. */
export function zeroPart(): Buffer {
  const digests = Buffer.alloc(PART_BYTES);
  for (let at = 0; at < PART_BYTES; at += DIGEST_BYTES) ZERO_LEAF.copy(digests, at);
  return digests;
}

/** The digest of the node over all digests of a part. */
export function partDigest(digests: Buffer): Buffer {
  return fold(digests, PART_BLOCKS);
}

/** The digest of a node over the first so many digests, a power of two. */
function fold(digests: Buffer, count: number): Buffer {
  const at = (index: number) => digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
  if (count === 1) return at(0);
  let level: Buffer[] = [];
  for (let i = 0; i < count; i += 2) {
    const [from, to] = [i * DIGEST_BYTES, (i + 2) * DIGEST_BYTES];
    // Most blocks of a disk are zero, and what lies over them is known.
    const isZero = ZERO_PAIR.compare(digests, from, to) === 0;
    level.push(isZero ? zeroDigest(1) : parentOf(at(i), at(i + 1)));
  }
  for (let height = 1; level.length > 1; height++) {
    const [zero, above]: [Buffer, Buffer[]] = [zeroDigest(height), []];
    for (let i = 0; i < level.length; i += 2) {
      const isZero = level[i].equals(zero) && level[i + 1].equals(zero);
      above.push(isZero ? zeroDigest(height + 1) : parentOf(level[i], level[i + 1]));
    }
    level = above;
  }
  return level[0];
}

/**
 * The digest of a disk.
 *
 * @param parts the digests of parts by index; what is not there is zero.
 * @param first the digests of the first part, where the disk has no other.
 */
export function rootOf(
  size: number,
  parts: ReadonlyMap<number, Buffer>,
  first: () => Buffer,
): string {
  const height = Math.ceil(Math.log2(Math.max(1, blocksOf(size))));
  if (height <= PART_HEIGHT) return digestText(size, fold(first(), 2 ** height));
  let level = parts;
  for (let at = PART_HEIGHT; at < height; at++) level = levelAbove(level, zeroDigest(at));
  return digestText(size, level.get(0) ?? zeroDigest(height));
}

function levelAbove(level: ReadonlyMap<number, Buffer>, zero: Buffer): Map<number, Buffer> {
  const above = new Map<number, Buffer>();
  for (const index of level.keys()) {
    const parent = Math.floor(index / 2);
    if (above.has(parent)) continue;
    const children = [level.get(parent * 2) ?? zero, level.get(parent * 2 + 1) ?? zero];
    above.set(parent, parentOf(children[0], children[1]));
  }
  return above;
}

/** Whether a digest is that of a part of zeroes. */
export function isZeroPart(digest: Buffer): boolean {
  return digest.equals(ZERO_PART);
}
