import { inflateRawSync } from 'node:zlib';

/** What a naive walk through a whole image finds. */
export interface CheckedImage {
  /** Things that make data unreadable, or get it overwritten. */
  readonly corruptions: string[];
  /** References that are counted and that nothing makes. */
  readonly leaks: number;
  readonly size: number;
  /** The disk as the guest sees it, over a backing file that holds `backing`. */
  read(backing?: Uint8Array): Uint8Array;
  /** The disk of an internal snapshot. */
  readSnapshot(index: number, backing?: Uint8Array): Uint8Array;
}

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
/** The same bits in the upper half of an entry. */
const COPIED_HIGH = 0x8000_0000;
const COMPRESSED_HIGH = 0x4000_0000;

interface Shape {
  readonly bytes: Buffer;
  readonly bits: number;
  readonly cluster: number;
  readonly extended: boolean;
  readonly dataFile: boolean;
  readonly size: number;
}

/**
 * Walks an image as its format's description has it, with none of the code under test: every table, every cluster, and
 * every refcount, from the file as a whole. Only for small images of tests.
 */
export function checkImage(file: Uint8Array): CheckedImage {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const corruptions: string[] = [];
  const u32 = (at: number) => bytes.readUInt32BE(at);
  const u64 = (at: number) => (at + 8 <= bytes.length ? bytes.readBigUInt64BE(at) : 0n);
  const version = u32(4);
  const incompatible = version > 2 ? u64(72) : 0n;
  const bits = u32(20);
  const cluster = 2 ** bits;
  const order = version > 2 ? u32(96) : 4;
  const shape: Shape = {
    bytes,
    bits,
    cluster,
    extended: (incompatible & 16n) !== 0n,
    dataFile: (incompatible & 4n) !== 0n,
    size: Number(u64(24)),
  };
  if (u32(0) !== 0x514649fb) corruptions.push('no magic');
  if ((incompatible & 3n) !== 0n) corruptions.push('marked as dirty or corrupt');

  const references = new Map<number, number>();
  const refer = (offset: number, length: number, what: string) => {
    if (offset % cluster !== 0 && !what.startsWith('compressed')) {
      corruptions.push(`${what} at ${offset} is not aligned`);
    }
    for (let at = Math.floor(offset / cluster); at * cluster < offset + length; at++) {
      references.set(at, (references.get(at) ?? 0) + 1);
    }
  };
  const needs = (offset: number, length: number, what: string) => {
    if (offset + length > bytes.length) corruptions.push(`${what} at ${offset} is behind the end`);
    refer(offset, length, what);
  };

  refer(0, cluster, 'the header');
  const tableOffset = Number(u64(48));
  const tableBytes = u32(56) * cluster;
  needs(tableOffset, tableBytes, 'the refcount table');
  const blockOf = new Map<number, number>();
  for (let i = 0; i * 8 < tableBytes; i++) {
    const offset = Number(u64(tableOffset + i * 8));
    if (offset === 0) continue;
    needs(offset, cluster, `refcount block ${i}`);
    blockOf.set(i, offset);
  }
  const perBlock = (cluster * 8) >> order;
  const refcountOf = (index: number): number => {
    const block = blockOf.get(Math.floor(index / perBlock));
    if (block === undefined) return 0;
    const bit = (index % perBlock) * 2 ** order;
    const at = block + (bit >> 3);
    if (at >= bytes.length) return 0;
    if (order === 6) return Number(bytes.readBigUInt64BE(at));
    if (order >= 3) return bytes.readUIntBE(at, 2 ** (order - 3));
    return (bytes[at] >> (bit & 7)) & (2 ** (2 ** order) - 1);
  };

  const snapshots: { offset: number; size: number; disk: number }[] = [];
  const start = Number(u64(64));
  let place = start;
  for (let i = 0; i < u32(60); i++) {
    const disk = u32(place + 36) >= 16 ? Number(u64(place + 48)) : shape.size;
    snapshots.push({ offset: Number(u64(place)), size: u32(place + 8), disk });
    const length =
      40 + u32(place + 36) + bytes.readUInt16BE(place + 12) + bytes.readUInt16BE(place + 14);
    place += Math.ceil(length / 8) * 8;
  }
  if (snapshots.length > 0) refer(start, place - start, 'the snapshot table');

  const active = { offset: Number(u64(40)), size: u32(36) };
  const copied: [string, number, boolean][] = [];
  for (const l1 of [active, ...snapshots]) {
    needs(l1.offset, l1.size * 8, 'an L1 table');
    for (let i = 0; i < l1.size; i++) {
      const entry = u64(l1.offset + i * 8);
      const table = Number(entry & OFFSET);
      if (table === 0) continue;
      needs(table, cluster, `L2 table ${i}`);
      if (l1 === active) copied.push([`L2 table ${i}`, table, (entry & COPIED) !== 0n]);
      walkTable(
        shape,
        table,
        (what, offset, length, isCopied) => {
          if (shape.dataFile) return;
          refer(offset, length, what);
          if (l1 === active && isCopied !== undefined) copied.push([what, offset, isCopied]);
        },
        corruptions,
      );
    }
  }

  let leaks = 0;
  const last = Math.max(
    Math.ceil(bytes.length / cluster),
    ...[...blockOf.keys()].map((i) => (i + 1) * perBlock),
  );
  for (let index = 0; index < last; index++) {
    const [counted, used] = [refcountOf(index), references.get(index) ?? 0];
    if (counted > used) leaks += counted - used;
    if (counted < used) corruptions.push(`cluster ${index} is counted ${counted}, used ${used}`);
    references.delete(index);
  }
  for (const [index] of references)
    corruptions.push(`cluster ${index} is used, and has no refcount`);
  for (const [what, offset, isCopied] of copied) {
    // A leaked reference to a cluster that is written in place is no harm; writing where two refer is.
    if (isCopied && refcountOf(offset / cluster) !== 1)
      corruptions.push(`${what} claims to be alone`);
    if (!isCopied && refcountOf(offset / cluster) === 1)
      corruptions.push(`${what} is alone, and denies it`);
  }
  return {
    corruptions,
    leaks,
    size: shape.size,
    read: (backing) => readDisk(shape, active, backing),
    readSnapshot: (index, backing) => {
      return readDisk({ ...shape, size: snapshots[index].disk }, snapshots[index], backing);
    },
  };
}

type Visit = (what: string, offset: number, length: number, copied?: boolean) => void;

function walkTable(shape: Shape, table: number, visit: Visit, corruptions: string[]): void {
  const { bytes, cluster, extended, bits } = shape;
  const step = extended ? 16 : 8;
  for (let at = table; at < Math.min(table + cluster, bytes.length); at += step) {
    const high = bytes.readUInt32BE(at);
    if ((high & COMPRESSED_HIGH) !== 0) {
      const { offset, length } = compressedPlace(bytes.readBigUInt64BE(at), bits);
      visit(`compressed cluster of entry ${at}`, offset, length);
      continue;
    }
    const offset = offsetIn(bytes, at);
    if (extended) {
      const [zero, allocated] = [bytes.readUInt32BE(at + 8), bytes.readUInt32BE(at + 12)];
      if ((zero & allocated) !== 0) corruptions.push(`entry ${at} has subclusters in two states`);
      if (allocated !== 0 && offset === 0 && !shape.dataFile)
        corruptions.push(`entry ${at} has no place`);
    }
    if (offset !== 0)
      visit(`the cluster of entry ${at}`, offset, cluster, (high & COPIED_HIGH) !== 0);
  }
}

/** Bits 9 to 55 of an entry, without a BigInt for each of the many entries. */
function offsetIn(bytes: Buffer, at: number): number {
  const low = bytes.readUInt32BE(at + 4);
  return (bytes.readUInt32BE(at) & 0x00ff_ffff) * 2 ** 32 + (low - (low % 512));
}

function compressedPlace(entry: bigint, bits: number): { offset: number; length: number } {
  const x = BigInt(62 - (bits - 8));
  const offset = Number(entry & ((1n << x) - 1n));
  const sectors = Number((entry & (COMPRESSED - 1n)) >> x);
  return { offset, length: (sectors + 1) * 512 - (offset % 512) };
}

function readDisk(
  shape: Shape,
  l1: { offset: number; size: number },
  backing?: Uint8Array,
): Uint8Array {
  const { bytes, cluster, extended, size, bits } = shape;
  const disk = new Uint8Array(size);
  if (backing !== undefined) disk.set(backing.subarray(0, size));
  const step = extended ? 16 : 8;
  const entries = cluster / step;
  const units = extended ? 32 : 1;
  const unit = cluster / units;
  const put = (at: number, source: Uint8Array | undefined, length: number) => {
    const end = Math.min(size, at + length);
    if (at >= end) return;
    disk.fill(0, at, end);
    if (source !== undefined) disk.set(source.subarray(0, end - at), at);
  };
  for (let index = 0; index * cluster < size; index++) {
    const table = offsetIn(bytes, l1.offset + Math.floor(index / entries) * 8);
    if (table === 0) continue;
    const at = table + (index % entries) * step;
    const guest = index * cluster;
    if ((bytes.readUInt32BE(at) & COMPRESSED_HIGH) !== 0) {
      const { offset, length } = compressedPlace(bytes.readBigUInt64BE(at), bits);
      put(
        guest,
        inflateRawSync(bytes.subarray(offset, offset + length), { maxOutputLength: cluster }),
        cluster,
      );
      continue;
    }
    const offset = offsetIn(bytes, at);
    for (let i = 0; i < units; i++) {
      const zero = extended ? (bytes.readUInt32BE(at + 8) >>> i) & 1 : bytes[at + 7] & 1;
      const has = extended ? (bytes.readUInt32BE(at + 12) >>> i) & 1 : offset !== 0;
      const from = offset + i * unit;
      if (zero) put(guest + i * unit, undefined, unit);
      else if (has) put(guest + i * unit, bytes.subarray(from, from + unit), unit);
    }
  }
  return disk;
}
