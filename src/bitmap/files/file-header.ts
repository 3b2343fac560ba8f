/**
 * The head of a file of bitmaps, version 1. Numbers are little-endian.
 *
 *     0   8  'LACUNABM'
 *     8   4  version
 *    12   4  length of the head, from byte 0 to behind its checksum
 *    16   8  bytes of the disk
 *    24   4  number of bitmaps
 *    28   4  length of the identity
 *    32      identity of the disk, UTF-8; may be empty
 *            for each bitmap:
 *              8  length of its section
 *              8  dirty bytes
 *             32  SHA-256 of its section
 *              1  log2 of its granularity
 *              1  bit 0: it records
 *              2  length of its name
 *                 name, UTF-8
 *        32  SHA-256 of everything before
 *            for each bitmap, 1 byte: its mark, 0x00 or 0xff
 *            the sections of the bitmaps, in order; see file-bits.ts
 *
 * A mark says that the bitmap records, so that what is stored lacks writes. Marks are written in
 * place: a single byte is never half written, and so it needs no checksum; it is one of two values
 * that no single flipped bit turns into each other. Everything else is only ever replaced as a whole.
 *
 * SHA-256 rather than a CRC: a bit that flips unnoticed is a granule missing from a backup, Node
 * computes it natively at about the speed of a disk, and its older versions have no CRC at all.
 */

import { createHash } from 'node:crypto';
import { exactText } from '../../util/index.js';
import { corrupt } from './file-failures.js';

export interface Head {
  readonly size: number;
  readonly identity: string;
  readonly bitmaps: readonly HeadEntry[];
}

export interface HeadEntry {
  readonly name: string;
  readonly granularity: number;
  readonly recording: boolean;
  readonly dirtyBytes: number;
  readonly sectionBytes: number;
  /** SHA-256 of the section. */
  readonly checksum: Uint8Array;
}

const MAGIC = 'LACUNABM';
const VERSION = 1;
const RECORDING = 1;
const FIXED_BYTES = 32;
const ENTRY_BYTES = 52;
const CHECKSUM_BYTES = 32;
/** Enough for ten thousand bitmaps with the longest names; what claims more is no head. */
const MAX_HEAD_BYTES = 16 * 2 ** 20;

/** What must be read to know how long the head is. */
export const PREFIX_BYTES = 16;

export const MARKED = 0xff;

/** Bytes of the head of bitmaps with these names, without the marks. */
export function headBytes(identity: string, names: readonly string[]): number {
  const texts = [identity, ...names].reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  return FIXED_BYTES + names.length * ENTRY_BYTES + texts + CHECKSUM_BYTES;
}

/** Bytes of a head, without the marks. */
export function bytesOf({ identity, bitmaps }: Head): number {
  return headBytes(
    identity,
    bitmaps.map(({ name }) => name),
  );
}

export function encodeHead(head: Head): Uint8Array {
  const { size, identity, bitmaps } = head;
  const length = bytesOf(head);
  if (length > MAX_HEAD_BYTES) throw new RangeError('so many bitmaps do not fit into one file');
  const bytes = Buffer.alloc(length);
  bytes.write(MAGIC, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(length, 12);
  bytes.writeBigUInt64LE(BigInt(size), 16);
  bytes.writeUInt32LE(bitmaps.length, 24);
  bytes.writeUInt32LE(Buffer.byteLength(identity), 28);
  let at = FIXED_BYTES + bytes.write(identity, FIXED_BYTES);
  for (const entry of bitmaps) at = encodeEntry(bytes, at, entry);
  createHash('sha256').update(bytes.subarray(0, at)).digest().copy(bytes, at);
  return bytes;
}

function encodeEntry(bytes: Buffer, at: number, entry: HeadEntry): number {
  bytes.writeBigUInt64LE(BigInt(entry.sectionBytes), at);
  bytes.writeBigUInt64LE(BigInt(entry.dirtyBytes), at + 8);
  bytes.set(entry.checksum, at + 16);
  bytes[at + 48] = Math.log2(entry.granularity);
  bytes[at + 49] = entry.recording ? RECORDING : 0;
  const nameBytes = bytes.write(entry.name, at + ENTRY_BYTES);
  bytes.writeUInt16LE(nameBytes, at + 50);
  return at + ENTRY_BYTES + nameBytes;
}

/** The length of the head that begins with these {@link PREFIX_BYTES}. */
export function readPrefix(prefix: Buffer, path: string): number {
  if (prefix.toString('latin1', 0, 8) !== MAGIC) throw corrupt(path, 'it is not a file of bitmaps');
  const version = prefix.readUInt32LE(8);
  if (version !== VERSION) {
    throw corrupt(path, `it has version ${version}, but only version ${VERSION} is known here`);
  }
  const length = prefix.readUInt32LE(12);
  if (length >= FIXED_BYTES + CHECKSUM_BYTES && length <= MAX_HEAD_BYTES) return length;
  throw corrupt(path, `its head cannot have ${length} bytes`);
}

/** Reads a whole head; whatever its bytes are, the result or the error is sound. */
export function decodeHead(bytes: Buffer, path: string): Head {
  const body = bytes.subarray(0, -CHECKSUM_BYTES);
  const checksum = createHash('sha256').update(body).digest();
  if (!checksum.equals(bytes.subarray(-CHECKSUM_BYTES)))
    throw corrupt(path, 'its head has changed');
  const reader = new HeadReader(body, path);
  reader.skip(PREFIX_BYTES);
  const size = reader.u64();
  const count = reader.number(4);
  const identity = reader.text(reader.number(4));
  // What follows bounds the number of entries, whatever the count says.
  const bitmaps: HeadEntry[] = [];
  while (bitmaps.length < count) bitmaps.push(readEntry(reader));
  if (reader.left > 0) throw corrupt(path, 'something follows its last bitmap');
  if (new Set(bitmaps.map(({ name }) => name)).size < count) {
    throw corrupt(path, 'two of its bitmaps have one name');
  }
  return { size, identity, bitmaps };
}

function readEntry(reader: HeadReader): HeadEntry {
  const sectionBytes = reader.u64();
  const dirtyBytes = reader.u64();
  const checksum = reader.bytes(CHECKSUM_BYTES);
  const shift = reader.number(1);
  const flags = reader.number(1);
  const nameBytes = reader.number(2);
  const name = reader.text(nameBytes);
  if (shift < 9 || shift > 31) throw reader.corrupt(`2^${shift} is no granularity`);
  if (flags > RECORDING) throw reader.corrupt(`flags ${flags} are not known`);
  if (nameBytes < 1 || nameBytes > 1023) throw reader.corrupt(`a name has ${nameBytes} bytes`);
  const recording = flags === RECORDING;
  return { name, granularity: 2 ** shift, recording, dirtyBytes, sectionBytes, checksum };
}

class HeadReader {
  readonly #bytes: Buffer;
  readonly #path: string;
  #at = 0;

  constructor(bytes: Buffer, path: string) {
    this.#bytes = bytes;
    this.#path = path;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  corrupt(what: string): Error {
    return corrupt(this.#path, what);
  }

  skip(length: number): void {
    this.bytes(length);
  }

  bytes(length: number): Buffer {
    if (length > this.left) throw this.corrupt('its head ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  number(length: 1 | 2 | 4): number {
    return this.bytes(length).readUIntLE(0, length);
  }

  u64(): number {
    const value = this.bytes(8).readBigUInt64LE();
    if (value > Number.MAX_SAFE_INTEGER) throw this.corrupt(`${value} is above 2^53 - 1`);
    return Number(value);
  }

  text(length: number): string {
    const text = exactText(this.bytes(length));
    if (text === undefined) throw this.corrupt('a name is not UTF-8');
    return text;
  }
}
