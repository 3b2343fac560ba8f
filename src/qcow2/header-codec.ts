/** The header of an image as bytes: "Header" and "Additional fields" of the format's description. */
import { exactText, readU64, viewOf, writeU64 } from '../util/index.js';
import { encodeExtensions, parseExtensions } from './extensions.js';
import { corrupt, noImage, oddName, unfinishedImage, unsupported } from './failures.js';
import type { Compression, Header } from './header.js';
import { checkHeader } from './header-check.js';
import {
  MAGIC,
  MAX_BACKING_NAME_BYTES,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  UNFINISHED_MAGIC,
  V2_HEADER_BYTES,
  V3_HEADER_BYTES,
} from './limits.js';
import { textBytes } from './text.js';

const COMPRESSIONS: readonly Compression[] = ['deflate', 'zstd'];
/** Bytes of the header with `compression_type` and its padding: what QEMU writes. */
const FULL_HEADER_BYTES = 112;
const V2_REFCOUNT_ORDER = 4;

/**
 * The cluster size, which says how much must be read to parse the header.
 *
 * @param bytes at least the first 24 of the image.
 * @throws LacunaError ERR_QCOW2_CORRUPT where this is no image, or one that cannot be.
 */
export function clusterSizeIn(bytes: Uint8Array, image: string): number {
  const view = viewOf(bytes);
  if (bytes.length < V2_HEADER_BYTES) throw noImage(image);
  const magic = view.getUint32(0);
  if (magic === UNFINISHED_MAGIC) throw unfinishedImage(image);
  if (magic !== MAGIC) throw noImage(image);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    const needed = `is a qcow2 image of version ${version}, and known are 2 and 3`;
    throw unsupported(image, needed, 'convert it with a newer qemu-img');
  }
  const bits = view.getUint32(20);
  if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS) {
    throw corrupt(image, `clusters of 2^${bits} bytes, where 2^9 to 2^21 are allowed`, 20);
  }
  return 2 ** bits;
}

/**
 * Reads and checks a header with its extensions.
 *
 * @param bytes the first cluster of the image, or the whole of a file that is shorter.
 * @throws LacunaError ERR_QCOW2_CORRUPT, or ERR_QCOW2_UNSUPPORTED where the image is encrypted or has an
 * incompatible feature that is not known.
 */
export function parseHeader(bytes: Uint8Array, image: string): Header {
  const clusterSize = clusterSizeIn(bytes, image);
  const view = viewOf(bytes);
  const version = view.getUint32(4) as 2 | 3;
  const length = headerLength(bytes, version, clusterSize, image);
  const has = (end: number) => version === 3 && length >= end;
  const backingOffset = readU64(view, 8);
  const end = Math.min(bytes.length, clusterSize, backingOffset === 0 ? Infinity : backingOffset);
  const header: Header = {
    version,
    clusterBits: view.getUint32(20),
    size: readU64(view, 24),
    l1Size: view.getUint32(36),
    l1Offset: readU64(view, 40),
    refcountTableOffset: readU64(view, 48),
    refcountTableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotsOffset: readU64(view, 64),
    incompatible: version === 3 ? view.getBigUint64(72) : 0n,
    compatible: version === 3 ? view.getBigUint64(80) : 0n,
    autoclear: version === 3 ? view.getBigUint64(88) : 0n,
    refcountOrder: version === 3 ? view.getUint32(96) : V2_REFCOUNT_ORDER,
    compression: compressionOf(has(105) ? bytes[104] : 0, image),
    additional: has(105) ? bytes.slice(105, length) : new Uint8Array(0),
    extensions: parseExtensions(bytes, length, end, image),
    backingFile: backingName(bytes, backingOffset, clusterSize, image),
  };
  checkHeader(header, { image, encryption: view.getUint32(32) });
  return header;
}

/**
 * The first bytes of an image: header, extensions and name of the backing file.
 *
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where they do not fit into the first cluster.
 */
export function encodeHeader(header: Header, image: string): Uint8Array {
  const { version, backingFile, additional } = header;
  const known = Math.max(FULL_HEADER_BYTES, Math.ceil((105 + additional.length) / 8) * 8);
  const length = version === 2 ? V2_HEADER_BYTES : known;
  const extensions = encodeExtensions(header.extensions);
  const name = backingFile === undefined ? new Uint8Array(0) : textBytes(backingFile);
  const bytes = new Uint8Array(length + extensions.length + name.length);
  if (bytes.length > 2 ** header.clusterBits || name.length > MAX_BACKING_NAME_BYTES) {
    const needed = `needs a header of ${bytes.length} bytes, ${name.length} of them the name of its backing file`;
    throw unsupported(image, needed, 'take larger clusters or a shorter name (at most 1023 bytes)');
  }
  const view = viewOf(bytes);
  writeFields(view, header);
  if (name.length > 0) {
    writeU64(view, 8, length + extensions.length);
    view.setUint32(16, name.length);
  }
  if (version === 3) {
    view.setUint32(100, length);
    view.setUint8(104, COMPRESSIONS.indexOf(header.compression));
    bytes.set(additional, 105);
  }
  bytes.set(extensions, length);
  bytes.set(name, length + extensions.length);
  return bytes;
}

/** The first four bytes of an image, or of one that is not finished: see {@link UNFINISHED_MAGIC}. */
export function magicBytes({ finished }: { readonly finished: boolean }): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, finished ? MAGIC : UNFINISHED_MAGIC);
  return bytes;
}

/**
 * Makes the first bytes of an image that is not finished those of one that is.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT where they are no such bytes.
 */
export function takeForFinished(bytes: Uint8Array, image: string): void {
  const view = viewOf(bytes);
  if (bytes.length < V2_HEADER_BYTES || view.getUint32(0) !== UNFINISHED_MAGIC)
    throw noImage(image);
  view.setUint32(0, MAGIC);
}

function writeFields(view: DataView, header: Header): void {
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  writeU64(view, 24, header.size);
  view.setUint32(36, header.l1Size);
  writeU64(view, 40, header.l1Offset);
  writeU64(view, 48, header.refcountTableOffset);
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  writeU64(view, 64, header.snapshotsOffset);
  if (header.version === 2) return;
  view.setBigUint64(72, header.incompatible);
  view.setBigUint64(80, header.compatible);
  view.setBigUint64(88, header.autoclear);
  view.setUint32(96, header.refcountOrder);
}

function headerLength(bytes: Uint8Array, version: number, clusterSize: number, image: string) {
  if (version === 2) return V2_HEADER_BYTES;
  const length = bytes.length < V3_HEADER_BYTES ? 0 : viewOf(bytes).getUint32(100);
  const fits = length >= V3_HEADER_BYTES && length <= Math.min(clusterSize, bytes.length);
  if (fits && length % 8 === 0) return length;
  throw corrupt(image, `a header of ${length} bytes, where 104 to one cluster are allowed`, 100);
}

function compressionOf(type: number, image: string): Compression {
  const compression = COMPRESSIONS[type];
  if (compression !== undefined) return compression;
  const needed = `is compressed by method ${type}, and known are 0 (deflate) and 1 (zstd)`;
  throw unsupported(image, needed, 'convert it with a newer qemu-img');
}

function backingName(bytes: Uint8Array, offset: number, clusterSize: number, image: string) {
  if (offset === 0) return undefined;
  const length = viewOf(bytes).getUint32(16);
  const room = Math.min(clusterSize, bytes.length) - offset;
  if (length > MAX_BACKING_NAME_BYTES || length > room) {
    const found = `a backing file name of ${length} bytes at ${offset}, where the first cluster ends`;
    throw corrupt(image, found, 16);
  }
  if (length === 0) return undefined;
  const name = exactText(bytes.subarray(offset, offset + length));
  if (name === undefined) throw oddName(image, 'backing file');
  return name;
}
