/** Digests of blocks as they come, in any order and any number, with little memory: the rest is in a file without a name. */
import fs from 'node:fs';
import { Bitmap } from '../../bitmap/index.js';
import { Replacement } from '../../files/index.js';
import { attempt } from '../layout/index.js';
import {
  blocksOf,
  DIGEST_BLOCK,
  DIGEST_BYTES,
  PART_BLOCKS,
  PART_BYTES,
  partDigest,
  rootOf,
  ZERO_LEAF,
  zeroPart,
} from './tree.js';

/** Parts that are held in memory: 8 MiB. */
const MOST_PARTS = 1024;

export class GatheredDigests {
  /** Bytes of the disk. */
  readonly size: number;
  /** The blocks whose digests have come and are not that of zeroes. */
  readonly data: Bitmap;
  readonly #path: string;
  readonly #fd: number;
  readonly #parts = new Map<number, Buffer>();

  /** @param beside a path in a folder where the file may be. */
  constructor(size: number, beside: string) {
    this.size = size;
    this.data = new Bitmap({ size, granularity: DIGEST_BLOCK });
    this.#path = beside;
    this.#fd = attempt('create', beside, () => scratch(beside));
  }

  /** Takes the digest of a block; the last one counts. */
  add(block: number, digest: Uint8Array): void {
    const offset = block * DIGEST_BLOCK;
    if (offset >= this.size) return;
    const length = Math.min(DIGEST_BLOCK, this.size - offset);
    if (ZERO_LEAF.equals(digest)) {
      this.data.reset(offset, length);
      return;
    }
    this.data.set(offset, length);
    const part = this.#part(Math.floor(block / PART_BLOCKS));
    part.set(digest, (block % PART_BLOCKS) * DIGEST_BYTES);
  }

  /** The digest of a block; that of zeroes where none has come. */
  digestOf(block: number): Buffer {
    if (block >= blocksOf(this.size) || !this.data.get(block * DIGEST_BLOCK)) return ZERO_LEAF;
    const at = (block % PART_BLOCKS) * DIGEST_BYTES;
    return this.#part(Math.floor(block / PART_BLOCKS)).subarray(at, at + DIGEST_BYTES);
  }

  /** The digest of all of it. */
  root(): string {
    const parts = new Map<number, Buffer>();
    for (const { offset, length } of this.data.ranges()) {
      const last = Math.floor((offset + length - 1) / (PART_BLOCKS * DIGEST_BLOCK));
      for (let part = Math.floor(offset / (PART_BLOCKS * DIGEST_BLOCK)); part <= last; part++) {
        if (!parts.has(part)) parts.set(part, partDigest(this.#digestsOf(part)));
      }
    }
    return rootOf(this.size, parts, () => this.#digestsOf(0));
  }

  /** The digests of a part; what has not come is zero, whatever came before. */
  #digestsOf(part: number): Buffer {
    const digests = zeroPart();
    const from = part * PART_BLOCKS;
    const end = Math.min(blocksOf(this.size), from + PART_BLOCKS);
    for (let block = from; block < end; block++) {
      digests.set(this.digestOf(block), (block - from) * DIGEST_BYTES);
    }
    return digests;
  }

  #part(index: number): Buffer {
    let part = this.#parts.get(index);
    if (part !== undefined) return part;
    if (this.#parts.size === MOST_PARTS) this.#write();
    const bytes = Buffer.alloc(PART_BYTES);
    attempt('read', this.#path, () =>
      fs.readSync(this.#fd, bytes, 0, PART_BYTES, index * PART_BYTES),
    );
    part = bytes;
    this.#parts.set(index, part);
    return part;
  }

  /** Makes room for the half that came first. */
  #write(): void {
    for (const [index, part] of [...this.#parts].slice(0, MOST_PARTS / 2)) {
      attempt('write', this.#path, () =>
        fs.writeSync(this.#fd, part, 0, PART_BYTES, index * PART_BYTES),
      );
      this.#parts.delete(index);
    }
  }

  /** Gives back the memory and the file. */
  free(): void {
    this.data.free();
    fs.closeSync(this.#fd);
  }
}

/** An open file that is gone with this process. */
function scratch(beside: string): number {
  const made = Replacement.create(beside);
  fs.unlinkSync(made.path);
  return made.fd;
}
