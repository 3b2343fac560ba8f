/** Writes the file of leaves of a point's disk. */
import { createHash, type Hash } from 'node:crypto';
import { basename } from 'node:path';
import type { Bitmap } from '../../bitmap/index.js';
import { Replacement } from '../../files/index.js';
import { attempt, type RepositoryOperations } from '../layout/index.js';
import type { LeavesState } from '../manifest/index.js';
import type { GatheredDigests } from './gathered.js';
import type { LeafChain } from './leaf-chain.js';
import { HEAD_BYTES, MAGIC, PART_ENTRY_BYTES, RUN_BYTES, ZERO_RUN } from './leaf-file.js';
import { blocksOf, DIGEST_BLOCK, DIGEST_BYTES, PART_BLOCKS, partDigest, zeroPart } from './tree.js';

/** What the leaves are of. */
export interface NewLeaves {
  readonly path: string;
  /** The blocks that the image holds; of the size of the disk, a bit for each. */
  readonly held: Bitmap;
  /** Of these blocks; what has not come is zero. */
  readonly digests: GatheredDigests;
  /** What lies below; undefined where nothing does. */
  readonly below: LeafChain | undefined;
  /** The digests of the image file. */
  readonly file: GatheredDigests;
}

interface Run {
  readonly first: number;
  readonly blocks: number;
  readonly isZero: boolean;
}

/** Digests of one write. */
const PIECE = 2048;

/** Writes the file, durably, under its own name. */
export function writeLeaves(leaves: NewLeaves, operations: RepositoryOperations): LeavesState {
  const { path, file } = leaves;
  const runs = [...runsOf(leaves)];
  const head = headOf(leaves, runs);
  return attempt('write', path, () => {
    const made = Replacement.create(path, { operations });
    try {
      const sink = new Sink(made.fd, operations);
      sink.write(head);
      const headSha256 = sink.sha256();
      for (const run of runs) if (!run.isZero) sink.writeDigests(leaves.digests, run);
      sink.writeDigests(file, { first: 0, blocks: blocksOf(file.size) });
      operations.sync(made.fd);
      made.finish();
      operations.syncFolder(path);
      return { name: basename(path), size: sink.size, headSha256, sha256: sink.sha256() };
    } finally {
      made.removeUnfinished();
      made.close();
    }
  });
}

class Sink {
  size = 0;
  readonly #fd: number;
  readonly #operations: RepositoryOperations;
  readonly #hash: Hash = createHash('sha256');

  constructor(fd: number, operations: RepositoryOperations) {
    this.#fd = fd;
    this.#operations = operations;
  }

  write(bytes: Uint8Array): void {
    this.#operations.write(this.#fd, bytes, this.size);
    this.#hash.update(bytes);
    this.size += bytes.length;
  }

  writeDigests(digests: GatheredDigests, { first, blocks }: Pick<Run, 'first' | 'blocks'>): void {
    for (let from = first; from < first + blocks; from += PIECE) {
      const count = Math.min(PIECE, first + blocks - from);
      const bytes = Buffer.allocUnsafe(count * DIGEST_BYTES);
      for (let i = 0; i < count; i++) bytes.set(digests.digestOf(from + i), i * DIGEST_BYTES);
      this.write(bytes);
    }
  }

  /** Of all that was written until now. */
  sha256(): string {
    return this.#hash.copy().digest('hex');
  }
}

/** What the image holds, as runs of blocks that are all zero or all not. */
function* runsOf({ held, digests }: NewLeaves): Generator<Run> {
  for (const { offset, length } of held.ranges()) {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const status = digests.data.status(at, end - at);
      const blocks = blocksOf(status.length);
      yield { first: at / DIGEST_BLOCK, blocks, isZero: !status.dirty };
      at += status.length;
    }
  }
}

function headOf(leaves: NewLeaves, runs: readonly Run[]): Buffer {
  const { held, file } = leaves;
  const parts = partsIn(leaves, runs);
  const head = Buffer.alloc(HEAD_BYTES + runs.length * RUN_BYTES + parts.length * PART_ENTRY_BYTES);
  MAGIC.copy(head);
  for (const [i, value] of [held.size, runs.length, parts.length, file.size].entries()) {
    head.writeBigUInt64LE(BigInt(value), 16 + i * 8);
  }
  let at = HEAD_BYTES;
  for (const { first, blocks, isZero } of runs) {
    head.writeBigUInt64LE(BigInt(first), at);
    head.writeBigUInt64LE(BigInt(blocks) | (isZero ? ZERO_RUN : 0n), at + 8);
    at += RUN_BYTES;
  }
  for (const [index, digest] of parts) {
    head.writeBigUInt64LE(BigInt(index), at);
    digest.copy(head, at + 8);
    at += PART_ENTRY_BYTES;
  }
  return head;
}

/** The digests of all parts that are not what they were below, by index and in order. */
function partsIn({ held, digests, below }: NewLeaves, runs: readonly Run[]): [number, Buffer][] {
  const blocks = blocksOf(held.size);
  const parts: [number, Buffer][] = [];
  for (const index of changedParts(runs, blocks, below)) {
    const leaves = below === undefined ? zeroPart() : Buffer.from(below.part(index));
    const from = index * PART_BLOCKS;
    // What lies below may be longer than this disk.
    if (blocks < from + PART_BLOCKS)
      zeroPart().copy(leaves, Math.max(0, blocks - from) * DIGEST_BYTES);
    for (let block = from; block < Math.min(blocks, from + PART_BLOCKS); block++) {
      if (!held.get(block * DIGEST_BLOCK)) continue;
      leaves.set(digests.digestOf(block), (block - from) * DIGEST_BYTES);
    }
    parts.push([index, partDigest(leaves)]);
  }
  return parts;
}

function changedParts(
  runs: readonly Run[],
  blocks: number,
  below: LeafChain | undefined,
): number[] {
  const parts = new Set<number>();
  for (const run of runs) {
    const last = Math.floor((run.first + run.blocks - 1) / PART_BLOCKS);
    for (let part = Math.floor(run.first / PART_BLOCKS); part <= last; part++) parts.add(part);
  }
  // A part that was cut inside has lost what is behind the end.
  if (below !== undefined && below.blocks > blocks) parts.add(Math.floor(blocks / PART_BLOCKS));
  return [...parts].sort((a, b) => a - b);
}
