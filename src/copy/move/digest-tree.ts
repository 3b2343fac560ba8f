/**
 * The digest of a disk's content: SHA-256 over a tree of fixed blocks. docs/digest.md defines it.
 *
 * What is not data costs nothing, because a subtree without data has a digest that depends on its height
 * alone. Digests of blocks may come in any order; two neighbours become their parent as soon as both are known,
 * so what is held is the border between what has come and what has not: for blocks that come about in order, a few
 * digests for each level and for each request in flight, whatever the size of the disk.
 */
import { createHash, hash } from 'node:crypto';
import type { Bitmap } from '../../bitmap/index.js';

/** Bytes of a block, the leaf of the tree. */
export const DIGEST_BLOCK = 64 * 1024;

/** Bytes of a digest. */
export const DIGEST_BYTES = 32;
const LABEL = Buffer.from('lacuna digest 1\n', 'latin1');
const PREFIX = 'lacuna1:';
const ZERO_BLOCK = Buffer.alloc(DIGEST_BLOCK);

/** The digests of zeroes alone, by height of the tree above them. */
const zeroes: Buffer[] = [sha256(ZERO_BLOCK)];

export class DigestTree implements BlockDigests {
  readonly #size: number;
  readonly #data: Bitmap;
  readonly #height: number;
  /** Blocks that have to come. */
  #missing: number;
  /** Digests that wait for their neighbour, by height and then by position. */
  readonly #waiting: Map<number, Uint8Array>[] = [];
  #top: Uint8Array | undefined;

  /**
   * A tree over `size` bytes of which only those in `data` may be anything but zero. Its granules must be
   * whole blocks, and it must not change.
   */
  constructor(size: number, data: Bitmap) {
    const blocks = Math.max(1, Math.ceil(size / DIGEST_BLOCK));
    this.#size = size;
    this.#data = data;
    this.#missing = Math.ceil(data.dirtyBytes / DIGEST_BLOCK);
    this.#height = Math.ceil(Math.log2(blocks));
    for (let height = 0; height < this.#height; height++) this.#waiting.push(new Map());
    if (this.#missing === 0) this.#top = zeroDigest(this.#height);
  }

  /** Digests that are held because a neighbour has not come yet. */
  get waiting(): number {
    return this.#waiting.reduce((sum, { size }) => sum + size, 0);
  }

  /** Takes the digest of a block of data. Each block comes once. */
  add(block: number, digest: Uint8Array): void {
    this.#missing--;
    let [index, node] = [block, digest];
    for (let height = 0; height < this.#height; height++) {
      const isLeft = index % 2 === 0;
      const neighbour = this.#take(height, isLeft ? index + 1 : index - 1);
      if (neighbour === undefined) {
        this.#waiting[height].set(index, node);
        return;
      }
      node = isLeft ? parentOf(node, neighbour) : parentOf(neighbour, node);
      index = Math.floor(index / 2);
    }
    this.#top = node;
  }

  /** The digest of the disk as text; undefined while blocks are missing. */
  root(): string | undefined {
    if (this.#top === undefined || this.#missing !== 0) return undefined;
    return digestText(this.#size, this.#top);
  }

  #take(height: number, index: number): Uint8Array | undefined {
    const known = this.#waiting[height].get(index);
    if (known === undefined) return this.#isZero(height, index) ? zeroDigest(height) : undefined;
    this.#waiting[height].delete(index);
    return known;
  }

  #isZero(height: number, index: number): boolean {
    const length = DIGEST_BLOCK * 2 ** height;
    const from = index * length;
    return from >= this.#size || this.#data.nextDirty(from, from + length) === -1;
  }
}

/** The digest of a disk as text, from the topmost node of its tree. */
export function digestText(size: number, top: Uint8Array): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(size));
  return `${PREFIX}${sha256(Buffer.concat([LABEL, bytes, top])).toString('hex')}`;
}

/** Who takes the digests of blocks. */
export interface BlockDigests {
  add(block: number, digest: Uint8Array): void;
}

/** Hands the digest of every block in `bytes` on; they begin at a multiple of the block size. */
export function digestBlocks(offset: number, bytes: Uint8Array, taker: BlockDigests): void {
  for (let at = 0; at < bytes.length; at += DIGEST_BLOCK) {
    taker.add((offset + at) / DIGEST_BLOCK, digestOf(bytes.subarray(at, at + DIGEST_BLOCK)));
  }
}

/** The digest of a block; behind the end of the disk it is zero. */
export function digestOf(block: Uint8Array): Uint8Array {
  if (block.length < DIGEST_BLOCK) {
    const rest = ZERO_BLOCK.subarray(block.length);
    return createHash('sha256').update(block).update(rest).digest();
  }
  // Zeroes inside data are common, and found a hundred times faster than they are hashed.
  return ZERO_BLOCK.equals(block) ? zeroes[0] : sha256(block);
}

/** The digest of a node below which all is zero. */
export function zeroDigest(height: number): Buffer {
  while (zeroes.length <= height) zeroes.push(parentOf(zeroes.at(-1)!, zeroes.at(-1)!));
  return zeroes[height];
}

/** The digest of a node, from those of its children. */
export function parentOf(left: Uint8Array, right: Uint8Array): Buffer {
  const pair = Buffer.allocUnsafe(2 * DIGEST_BYTES);
  pair.set(left);
  pair.set(right, DIGEST_BYTES);
  return sha256(pair);
}

function sha256(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer');
}
