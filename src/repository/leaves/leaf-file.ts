/** The file of leaves of a point's disk, for reading. docs/repository.md has its layout. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { attempt, type OpenFile, openFile } from '../layout/index.js';
import type { LeavesState } from '../manifest/index.js';
import { blocksOf, DIGEST_BLOCK, DIGEST_BYTES, PART_BLOCKS, ZERO_LEAF } from './tree.js';

export const MAGIC = Buffer.from('lacuna leaves 1\n', 'latin1');
export const HEAD_BYTES = 48;
export const RUN_BYTES = 16;
/** Bytes that are read at once of a file that is opened. */
const FIRST_BYTES = 4096;
export const PART_ENTRY_BYTES = 8 + DIGEST_BYTES;
/** Of a number of blocks: all of them are zero. */
export const ZERO_RUN = 2n ** 63n;

/** Blocks one behind the other that an image holds. */
export interface LeafRun {
  readonly first: number;
  readonly blocks: number;
  readonly isZero: boolean;
  /** Where their digests begin in the file. */
  readonly at: number;
}

export class LeafFile {
  readonly path: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes of the image file. */
  readonly fileSize: number;
  /** What the image holds, in order. */
  readonly runs: readonly LeafRun[];
  /** The digests of the parts in which any of it lies. */
  readonly parts: ReadonlyMap<number, Buffer>;
  /** Where the digests of the image file begin. */
  readonly #fileAt: number;
  readonly #fd: number;

  /** @throws LacunaError ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE */
  static open(path: string, state: LeavesState): LeafFile {
    const { fd, size } = attempt('open', path, () => openThere(path));
    try {
      if (size !== state.size) throw damaged(path, 'it has another size than when it was written');
      return new LeafFile(path, fd, state);
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  private constructor(path: string, fd: number, state: LeavesState) {
    this.path = path;
    this.#fd = fd;
    // Most heads are short, and a chain has many: one read is enough.
    const start = this.#read(0, Math.min(FIRST_BYTES, Math.max(HEAD_BYTES, state.size)));
    const [size, runs, parts, fileSize] = [16, 24, 32, 40].map((at) =>
      Number(start.readBigUInt64LE(at)),
    );
    const length = HEAD_BYTES + runs * RUN_BYTES + parts * PART_ENTRY_BYTES;
    // Before anything of that length is read.
    if (!(length <= state.size)) throw damaged(path, 'its head was changed since it was written');
    const head = length <= start.length ? start.subarray(0, length) : this.#read(0, length);
    if (createHash('sha256').update(head).digest('hex') !== state.headSha256) {
      throw damaged(path, 'its head was changed since it was written');
    }
    this.size = size;
    this.fileSize = fileSize;
    this.runs = readRuns(head, runs, length);
    this.parts = readParts(head, HEAD_BYTES + runs * RUN_BYTES, parts);
    const blocks = this.runs.reduce((sum, run) => sum + (run.isZero ? 0 : run.blocks), 0);
    this.#fileAt = length + blocks * DIGEST_BYTES;
  }

  /** Blocks of the disk. */
  get blocks(): number {
    return blocksOf(this.size);
  }

  /**
   * Puts the digests of the blocks that the image holds into those of a part, where there is none yet.
   *
   * @param known a 1 for each block of the part that has one
   * @param limit first block that is not asked for
   */
  fill(part: number, digests: Buffer, known: Uint8Array, limit: number): void {
    const [from, to] = [part * PART_BLOCKS, Math.min(limit, (part + 1) * PART_BLOCKS)];
    for (let i = this.#firstRunBehind(from); i < this.runs.length; i++) {
      const run = this.runs[i];
      if (run.first >= to) return;
      const start = Math.max(from, run.first);
      const end = Math.min(to, run.first + run.blocks);
      const bytes = run.isZero
        ? undefined
        : this.#read(run.at + (start - run.first) * DIGEST_BYTES, (end - start) * DIGEST_BYTES);
      for (let block = start; block < end; block++) {
        if (known[block - from]) continue;
        known[block - from] = 1;
        const source = (block - start) * DIGEST_BYTES;
        const digest = bytes?.subarray(source, source + DIGEST_BYTES) ?? ZERO_LEAF;
        digests.set(digest, (block - from) * DIGEST_BYTES);
      }
    }
  }

  /** The digests of the blocks of the image file, from one block on; at most so many. */
  fileDigests(block: number, count: number): Buffer {
    const blocks = Math.min(count, blocksOf(this.fileSize) - block);
    return this.#read(this.#fileAt + block * DIGEST_BYTES, blocks * DIGEST_BYTES);
  }

  /** Throws unless all of the file is as it was written. */
  check({ sha256 }: LeavesState): void {
    const hash = createHash('sha256');
    const { size } = fs.fstatSync(this.#fd);
    for (let at = 0; at < size; at += DIGEST_BLOCK) {
      hash.update(this.#read(at, Math.min(DIGEST_BLOCK, size - at)));
    }
    if (hash.digest('hex') !== sha256)
      throw damaged(this.path, 'it was changed since it was written');
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  /** The first run that ends behind a block. */
  #firstRunBehind(block: number): number {
    let [low, high] = [0, this.runs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const { first, blocks } = this.runs[middle];
      if (first + blocks <= block) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #read(at: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    const read = attempt('read', this.path, () => fs.readSync(this.#fd, bytes, 0, length, at));
    if (read < length) throw damaged(this.path, 'it is cut short');
    return bytes;
  }
}

function openThere(path: string): OpenFile {
  try {
    return openFile(path, fs.constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw damaged(path, 'it is not there');
    throw error;
  }
}

function damaged(path: string, why: string): LacunaError {
  const message = `${path}, which has digests of a disk: ${why}`;
  return new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: path });
}

function readRuns(head: Buffer, count: number, digestsAt: number): LeafRun[] {
  const runs: LeafRun[] = [];
  let at = digestsAt;
  for (let i = 0; i < count; i++) {
    const first = Number(head.readBigUInt64LE(HEAD_BYTES + i * RUN_BYTES));
    const said = head.readBigUInt64LE(HEAD_BYTES + i * RUN_BYTES + 8);
    const isZero = (said & ZERO_RUN) !== 0n;
    const blocks = Number(said & (ZERO_RUN - 1n));
    runs.push({ first, blocks, isZero, at });
    if (!isZero) at += blocks * DIGEST_BYTES;
  }
  return runs;
}

function readParts(head: Buffer, at: number, count: number): Map<number, Buffer> {
  const parts = new Map<number, Buffer>();
  for (let i = 0; i < count; i++) {
    const entry = at + i * PART_ENTRY_BYTES;
    parts.set(
      Number(head.readBigUInt64LE(entry)),
      head.subarray(entry + 8, entry + PART_ENTRY_BYTES),
    );
  }
  return parts;
}
