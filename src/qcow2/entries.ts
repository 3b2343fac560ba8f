/**
 * The entries of L1, L2 and refcount tables ("Cluster mapping", "Host cluster management"). An entry is read and
 * written as two halves of 32 bits: numbers are exact only to 2^53, and a BigInt for each entry would be slow.
 */
import { joinHalves, writeU64 } from '../util/index.js';
import type { Geometry } from './geometry.js';

/** Bits of the high half. */
const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const HIGH_OFFSET = 0x00ff_ffff;
/** Bits of the low half. */
const LOW_OFFSET = 0xffff_fe00;
const ZERO = 1;

/** An L1 entry, or a standard entry of an L2 table. */
export interface StandardEntry {
  /** Where the L2 table, or the cluster, starts in the file; 0 where there is none. */
  readonly offset: number;
  /** Its refcount is exactly one: it may be written in place. */
  readonly copied: boolean;
}

export interface L2Entry extends StandardEntry {
  /** Bit 0: the cluster reads as zero, wherever it is. Always false with extended L2 entries. */
  readonly zero: boolean;
}

/** "Compressed Clusters Descriptor". */
export interface CompressedEntry {
  /** Where the compressed bytes start; on no boundary of anything. */
  readonly offset: number;
  /** The most bytes that they take; they end in the last 512 of these. */
  readonly length: number;
}

/** Bits 9 to 55 of an entry: a host offset. */
export function entryOffset(high: number, low: number): number {
  return joinHalves(high & HIGH_OFFSET, (low & LOW_OFFSET) >>> 0);
}

/**
 * Where the cluster of a standard L2 entry lies, 0 where it lies nowhere; -1 where it is compressed, or no entry that can be.
 * For walks over millions of them.
 */
export function plainHost(high: number, low: number, clusterSize: number): number {
  const isPlain = (high & COMPRESSED) === 0 && (low & LOW_OFFSET & (clusterSize - 1)) === 0;
  const offset = isPlain ? entryOffset(high, low) : -1;
  return offset <= Number.MAX_SAFE_INTEGER ? offset : -1;
}

/** The high half of an entry that says the other thing of its cluster: that it is alone, or that it is not. */
export function withOtherCopied(high: number): number {
  return (high ^ COPIED) >>> 0;
}

export function isCopied(high: number): boolean {
  return (high & COPIED) !== 0;
}

export function isCompressed(high: number): boolean {
  return (high & COMPRESSED) !== 0;
}

export function isZeroFlagged(low: number): boolean {
  return (low & ZERO) !== 0;
}

/** Reads the L1 entry at a byte of a table. */
export function readL1Entry(view: DataView, at: number): StandardEntry {
  const high = view.getUint32(at);
  return { offset: entryOffset(high, view.getUint32(at + 4)), copied: isCopied(high) };
}

/** Writes an L1 entry; an offset of 0 means that there is no L2 table. */
export function writeL1Entry(view: DataView, at: number, { offset, copied }: StandardEntry): void {
  writeU64(view, at, offset);
  if (copied) view.setUint32(at, (view.getUint32(at) | COPIED) >>> 0);
}

/** Reads the standard L2 entry at a byte of a table, which must not be compressed. */
export function readL2Entry(view: DataView, at: number): L2Entry {
  const low = view.getUint32(at + 4);
  return { ...readL1Entry(view, at), zero: isZeroFlagged(low) };
}

export function writeL2Entry(view: DataView, at: number, entry: L2Entry): void {
  writeL1Entry(view, at, entry);
  if (entry.zero) view.setUint32(at + 4, (view.getUint32(at + 4) | ZERO) >>> 0);
}

/** Bits of the offset in a compressed entry: the rest counts sectors. */
function compressedOffsetBits({ clusterBits }: Geometry): number {
  return 62 - (clusterBits - 8);
}

/** Reads the descriptor of a compressed cluster from the halves of an L2 entry. */
export function compressedEntry(high: number, low: number, geometry: Geometry): CompressedEntry {
  const highBits = compressedOffsetBits(geometry) - 32;
  const offset = joinHalves((high & ~(COPIED | COMPRESSED)) % 2 ** highBits, low);
  const sectors = (high & ~(COPIED | COMPRESSED)) >>> highBits;
  return { offset, length: (sectors + 1) * 512 - (offset % 512) };
}

/**
 * Writes the descriptor of a compressed cluster.
 *
 * @param length bytes of compressed data, at least 1.
 */
export function writeCompressedEntry(
  view: DataView,
  at: number,
  { offset, length }: CompressedEntry,
  geometry: Geometry,
): void {
  const highBits = compressedOffsetBits(geometry) - 32;
  const sectors = Math.floor((offset + length - 1) / 512) - Math.floor(offset / 512);
  writeU64(view, at, offset);
  const high = view.getUint32(at) + sectors * 2 ** highBits;
  view.setUint32(at, (high | COMPRESSED) >>> 0);
}

/**
 * The second half of an extended L2 entry ("Subcluster Allocation Bitmap"): bit x of each word stands for
 * subcluster x.
 */
export interface Subclusters {
  readonly zero: number;
  readonly allocated: number;
}

/** Reads the subclusters of the extended L2 entry that starts at a byte of a table. */
export function readSubclusters(view: DataView, at: number): Subclusters {
  return { zero: view.getUint32(at + 8), allocated: view.getUint32(at + 12) };
}

export function writeSubclusters(view: DataView, at: number, subclusters: Subclusters): void {
  view.setUint32(at + 8, subclusters.zero);
  view.setUint32(at + 12, subclusters.allocated);
}

/** Reads the offset of a refcount block from the refcount table; 0 where there is none. */
export function readRefcountTableEntry(view: DataView, at: number): number {
  return joinHalves(view.getUint32(at), (view.getUint32(at + 4) & LOW_OFFSET) >>> 0);
}

/** A refcount table entry is the offset itself. */
export const writeRefcountTableEntry = writeU64;
