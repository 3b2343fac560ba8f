/** The snapshot table: "Snapshots" of the format's description. */
import { counted, readU64, viewOf, writeU64 } from '../util/index.js';
import { corrupt } from './failures.js';
import type { Geometry } from './geometry.js';
import type { Header } from './header.js';
import { MAX_L1_BYTES, MAX_SNAPSHOT_EXTRA_BYTES } from './limits.js';
import { readText, textBytes } from './text.js';

export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Bytes of the disk when the snapshot was taken. */
  readonly size: number;
  /** When it was taken: seconds since 1970, and nanoseconds of the second. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** How long the guest had run, in nanoseconds. */
  readonly clock: bigint;
  /** Bytes of the state of the machine. */
  readonly stateSize: number;
  /** Extra data from "icount" on, which is kept. */
  readonly extra: Uint8Array;
}

const FIXED_BYTES = 40;
/** Extra data with the long size of the state, and the size of the disk. */
const KNOWN_EXTRA_BYTES = 16;

/** What a snapshot table's entries are read with. */
export interface SnapshotsOptions {
  readonly header: Pick<Header, 'snapshotCount' | 'snapshotsOffset' | 'size'>;
  readonly geometry: Geometry;
  readonly image: string;
}

/**
 * Reads the snapshots in a table.
 *
 * @param bytes the image from `snapshotsOffset` on; more than the table has is harmless.
 * @returns the snapshots and the bytes that they take; undefined where `bytes` end before the table does.
 * @throws LacunaError ERR_QCOW2_CORRUPT where an entry cannot be.
 */
export function parseSnapshots(
  bytes: Uint8Array,
  options: SnapshotsOptions,
): { snapshots: Snapshot[]; length: number } | undefined {
  const snapshots: Snapshot[] = [];
  let at = 0;
  for (let i = 0; i < options.header.snapshotCount; i++) {
    const length = entryLength(bytes, at, options);
    if (length === undefined || at + length > bytes.length) return undefined;
    snapshots.push(parseEntry(bytes.subarray(at, at + length), at, options));
    // The padding of the last entry may lie behind the end of the file.
    at += Math.ceil(length / 8) * 8;
  }
  return { snapshots, length: at };
}

/** The snapshot table as bytes. */
export function encodeSnapshots(snapshots: readonly Snapshot[]): Uint8Array {
  const entries = snapshots.map(encodeEntry);
  const bytes = new Uint8Array(entries.reduce((sum, entry) => sum + entry.length, 0));
  let at = 0;
  for (const entry of entries) {
    bytes.set(entry, at);
    at += entry.length;
  }
  return bytes;
}

function entryLength(bytes: Uint8Array, at: number, options: SnapshotsOptions): number | undefined {
  if (at + FIXED_BYTES > bytes.length) return undefined;
  const view = viewOf(bytes);
  const extra = view.getUint32(at + 36);
  if (extra > MAX_SNAPSHOT_EXTRA_BYTES) {
    const { image, header } = options;
    throw corrupt(image, `a snapshot with ${extra} bytes of extra`, header.snapshotsOffset + at);
  }
  return FIXED_BYTES + extra + view.getUint16(at + 12) + view.getUint16(at + 14);
}

function parseEntry(entry: Uint8Array, at: number, options: SnapshotsOptions): Snapshot {
  const { header, geometry, image } = options;
  const view = viewOf(entry);
  const extra = view.getUint32(36);
  const idStart = FIXED_BYTES + extra;
  const nameStart = idStart + view.getUint16(12);
  const snapshot: Snapshot = {
    l1Offset: readU64(view, 0),
    l1Size: view.getUint32(8),
    seconds: view.getUint32(16),
    nanoseconds: view.getUint32(20),
    clock: view.getBigUint64(24),
    stateSize: extra >= 8 ? readU64(view, 40) : view.getUint32(32),
    size: extra >= KNOWN_EXTRA_BYTES ? readU64(view, 48) : header.size,
    extra: entry.slice(FIXED_BYTES + Math.min(extra, KNOWN_EXTRA_BYTES), idStart),
    id: readText(entry.subarray(idStart, nameStart)),
    name: readText(entry.subarray(nameStart)),
  };
  const isPlace = Number.isSafeInteger(snapshot.l1Offset);
  if (!isPlace || snapshot.l1Offset % geometry.clusterSize !== 0) {
    const found = `the L1 table of snapshot "${snapshot.name}" at ${snapshot.l1Offset}`;
    throw corrupt(image, `${found}, which is no start of a cluster`, header.snapshotsOffset + at);
  }
  if (!Number.isSafeInteger(snapshot.size)) {
    const found = `a disk of ${snapshot.size} bytes in snapshot "${snapshot.name}"`;
    throw corrupt(image, found, header.snapshotsOffset + at);
  }
  if (snapshot.l1Size * 8 > MAX_L1_BYTES) {
    const found = `an L1 table of ${counted(snapshot.l1Size, 'entry', 'entries')} in snapshot "${snapshot.name}"`;
    throw corrupt(image, found, header.snapshotsOffset + at);
  }
  return snapshot;
}

function encodeEntry(snapshot: Snapshot): Uint8Array {
  const id = textBytes(snapshot.id);
  const name = textBytes(snapshot.name);
  const extra = KNOWN_EXTRA_BYTES + snapshot.extra.length;
  const idStart = FIXED_BYTES + extra;
  const bytes = new Uint8Array(Math.ceil((idStart + id.length + name.length) / 8) * 8);
  const view = viewOf(bytes);
  writeU64(view, 0, snapshot.l1Offset);
  view.setUint32(8, snapshot.l1Size);
  view.setUint16(12, id.length);
  view.setUint16(14, name.length);
  view.setUint32(16, snapshot.seconds);
  view.setUint32(20, snapshot.nanoseconds);
  view.setBigUint64(24, snapshot.clock);
  view.setUint32(32, snapshot.stateSize > 0xffff_ffff ? 0xffff_ffff : snapshot.stateSize);
  view.setUint32(36, extra);
  writeU64(view, 40, snapshot.stateSize);
  writeU64(view, 48, snapshot.size);
  bytes.set(snapshot.extra, 56);
  bytes.set(id, idStart);
  bytes.set(name, idStart + id.length);
  return bytes;
}
