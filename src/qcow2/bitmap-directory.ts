/**
 * The bitmap directory ("Bitmaps extension", "Bitmap directory"): one entry for each bitmap, without a gap, each
 * padded to 8 bytes.
 */
import { counted, exactText, readU64, viewOf, writeU64 } from '../util/index.js';
import type { BitmapsExtension } from './extensions.js';
import { corrupt, unsupported } from './failures.js';
import { Autoclear } from './features.js';
import type { Geometry } from './geometry.js';
import type { Header } from './header.js';
import { MAX_BITMAP_NAME_BYTES, MAX_BITMAPS } from './limits.js';
import { textBytes } from './text.js';

/** One bitmap, as the directory has it. */
export interface BitmapEntry {
  readonly name: string;
  /** Where the bitmap table starts, at the start of a cluster. */
  readonly tableOffset: number;
  /** Entries of the table; never 0. */
  readonly tableEntries: number;
  /** Granules are 2^9 to 2^31 bytes. */
  readonly granularityBits: number;
  /** Somebody recorded into it and did not store it: what is stored lacks writes. */
  readonly inUse: boolean;
  /** Records every write to the disk, from when the image is opened. */
  readonly auto: boolean;
}

/** The disk and the image that bitmaps belong to. */
export interface BitmapOwner {
  /** How a person would name the image. */
  readonly image: string;
  readonly geometry: Geometry;
  /** Bytes of the disk. */
  readonly size: number;
}

/** QEMU's limits; an image beyond them is refused by it. */
export const MAX_BITMAP_DIRECTORY_BYTES = MAX_BITMAPS * 1024;
/** Bytes of clusters that hold the bits of one bitmap. */
export const MAX_BITMAP_BYTES = 512 * 1024 * 1024;
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;

const ENTRY_BYTES = 24;
const DIRTY_TRACKING = 1;

/** Where the flags of an entry lie. */
const FLAGS_AT = 12;
const IN_USE = 1;
const AUTO = 2;

/** The place of the directory; undefined where there are no bitmaps, or none that may be believed. */
export function validBitmaps({ autoclear, extensions }: Header): BitmapsExtension | undefined {
  return (autoclear & Autoclear.bitmaps) === 0n ? undefined : extensions.bitmaps;
}

/**
 * Checks what the header says of the directory, before so many bytes are read.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT
 */
export function checkBitmapsExtension(
  { count, directorySize, directoryOffset }: BitmapsExtension,
  { image, geometry }: BitmapOwner,
): void {
  const fail = (found: string) => {
    throw corrupt(image, found, directoryOffset);
  };
  if (count === 0) fail('a bitmaps extension without bitmaps');
  if (count > MAX_BITMAPS) fail(`${count} bitmaps, where at most ${MAX_BITMAPS} are allowed`);
  if (directorySize < count * ENTRY_BYTES || directorySize > MAX_BITMAP_DIRECTORY_BYTES) {
    fail(`a bitmap directory of ${directorySize} bytes for ${counted(count, 'bitmap')}`);
  }
  if (!isClusterStart(directoryOffset, geometry)) {
    fail(`a bitmap directory at ${directoryOffset}, where none can be`);
  }
}

/** Clusters that the table of a bitmap names: what one cluster holds of its bits, 64 of them at a time. */
export function bitmapTableEntries(
  granularityBits: number,
  { size, geometry }: Pick<BitmapOwner, 'size' | 'geometry'>,
): number {
  const words = Math.ceil(Math.ceil(size / 2 ** granularityBits) / 64);
  return Math.ceil((words * 8) / geometry.clusterSize);
}

/**
 * Reads a whole directory.
 *
 * @param extension where it lies; see {@link checkBitmapsExtension}.
 * @throws LacunaError ERR_QCOW2_CORRUPT; ERR_QCOW2_UNSUPPORTED where an entry has data that is not known.
 */
export function parseBitmapDirectory(
  bytes: Uint8Array,
  extension: BitmapsExtension,
  owner: BitmapOwner,
): BitmapEntry[] {
  const { count, directoryOffset } = extension;
  const entries: BitmapEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (; entries.length < count && at + ENTRY_BYTES <= bytes.length; ) {
    const reader = new EntryReader(bytes, at, directoryOffset, owner);
    const entry = reader.read();
    if (names.has(entry.name)) throw reader.corrupt('a second bitmap of that name', entry.name);
    names.add(entry.name);
    entries.push(entry);
    at += reader.length;
  }
  if (entries.length === count && at === bytes.length) return entries;
  const found = `a bitmap directory of ${bytes.length} bytes whose ${entries.length} entries take ${at}`;
  throw corrupt(owner.image, `${found}; ${count} are announced`, directoryOffset);
}

/** Bytes of a directory of these bitmaps. */
export function bitmapDirectoryBytes(entries: readonly Pick<BitmapEntry, 'name'>[]): number {
  return entries.reduce((sum, { name }) => sum + entryBytes(Buffer.byteLength(name)), 0);
}

export function encodeBitmapDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  const bytes = new Uint8Array(bitmapDirectoryBytes(entries));
  const view = viewOf(bytes);
  let at = 0;
  for (const entry of entries) {
    const name = textBytes(entry.name);
    writeU64(view, at, entry.tableOffset);
    view.setUint32(at + 8, entry.tableEntries);
    view.setUint32(at + FLAGS_AT, (entry.inUse ? IN_USE : 0) | (entry.auto ? AUTO : 0));
    view.setUint8(at + 16, DIRTY_TRACKING);
    view.setUint8(at + 17, entry.granularityBits);
    view.setUint16(at + 18, name.length);
    bytes.set(name, at + ENTRY_BYTES);
    at += entryBytes(name.length);
  }
  return bytes;
}

/** Says in a directory whether some bitmaps are in use; returns where the flags lie, 4 bytes each. */
export function markInUse(bytes: Uint8Array, names: ReadonlySet<string>, inUse = true): number[] {
  const view = viewOf(bytes);
  const marked: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint16(at + 18);
    const name = Buffer.from(
      bytes.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + length),
    ).toString();
    if (names.has(name)) {
      const flags = view.getUint32(at + FLAGS_AT);
      view.setUint32(at + FLAGS_AT, inUse ? flags | IN_USE : flags & ~IN_USE);
      marked.push(at + FLAGS_AT);
    }
    at += entryBytes(length);
  }
  return marked;
}

/** Why a bitmap cannot be stored in an image, in a few words; undefined where it can. */
export function whyNotStorable(
  { name, granularityBits }: Pick<BitmapEntry, 'name' | 'granularityBits'>,
  owner: BitmapOwner,
): string | undefined {
  const bytes = bitmapTableEntries(granularityBits, owner) * owner.geometry.clusterSize;
  if (bytes > MAX_BITMAP_BYTES) {
    return `its bits take ${bytes} bytes, and at most ${MAX_BITMAP_BYTES} are allowed: choose a coarser granularity`;
  }
  if (Buffer.byteLength(name) > MAX_BITMAP_NAME_BYTES) {
    return `its name is longer than ${MAX_BITMAP_NAME_BYTES} bytes`;
  }
  return owner.size === 0 ? 'the disk is empty' : undefined;
}

class EntryReader {
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #at: number;
  readonly #base: number;
  readonly #owner: BitmapOwner;

  constructor(bytes: Uint8Array, at: number, base: number, owner: BitmapOwner) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#at = at;
    this.#base = base;
    this.#owner = owner;
    this.length = entryBytes(this.#u16(18) + this.#u32(20));
  }

  read(): BitmapEntry {
    const name = this.#name();
    const flags = this.#u32(FLAGS_AT);
    const extra = this.#u32(20);
    if (extra > 0 || (flags & ~(IN_USE | AUTO)) !== 0 || this.#bytes[this.#at + 16] !== 1) {
      const needed = `has a bitmap "${name}" of a kind that is not known here`;
      throw unsupported(this.#owner.image, needed, 'remove it with the program that made it');
    }
    const entry = {
      name,
      tableOffset: readU64(this.#view, this.#at),
      tableEntries: this.#u32(8),
      granularityBits: this.#bytes[this.#at + 17],
      inUse: (flags & IN_USE) !== 0,
      auto: (flags & AUTO) !== 0,
    };
    this.#check(entry);
    return entry;
  }

  corrupt(found: string, name: string): Error {
    return corrupt(this.#owner.image, `${found} for bitmap "${name}"`, this.#base + this.#at);
  }

  #name(): string {
    const length = this.#u16(18);
    const from = this.#at + ENTRY_BYTES + this.#u32(20);
    if (this.#at + this.length > this.#bytes.length) {
      throw this.corrupt('an entry that reaches behind the directory', '');
    }
    const name = exactText(this.#bytes.subarray(from, from + length));
    if (name !== undefined && length > 0 && length <= MAX_BITMAP_NAME_BYTES) return name;
    throw this.corrupt(`a name of ${length} bytes, which is no text of 1 to 1023 bytes`, '');
  }

  #check({ name, tableOffset, tableEntries, granularityBits, inUse }: BitmapEntry): void {
    const { geometry, size } = this.#owner;
    if (granularityBits < MIN_GRANULARITY_BITS || granularityBits > MAX_GRANULARITY_BITS) {
      throw this.corrupt(`granules of 2^${granularityBits} bytes`, name);
    }
    const bytes = tableEntries * geometry.clusterSize;
    if (tableEntries === 0 || bytes > MAX_BITMAP_BYTES) {
      throw this.corrupt(`a table of ${counted(tableEntries, 'entry', 'entries')}`, name);
    }
    if (!isClusterStart(tableOffset, geometry)) {
      throw this.corrupt(`a table at ${tableOffset}, where none can be,`, name);
    }
    // What is in use may be from before the disk was resized.
    const needed = bitmapTableEntries(granularityBits, { size, geometry });
    if (!inUse && tableEntries !== needed) {
      throw this.corrupt(
        `a table of ${counted(tableEntries, 'entry', 'entries')} instead of ${needed}`,
        name,
      );
    }
  }

  #u16(field: number): number {
    return this.#view.getUint16(this.#at + field);
  }

  #u32(field: number): number {
    return this.#view.getUint32(this.#at + field);
  }
}

function entryBytes(variable: number): number {
  return Math.ceil((ENTRY_BYTES + variable) / 8) * 8;
}

function isClusterStart(offset: number, { clusterSize }: Geometry): boolean {
  return offset > 0 && Number.isSafeInteger(offset) && offset % clusterSize === 0;
}
