import { lstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { LacunaError, throwIfAborted } from '../../../../errors/index.js';
import { isSamePlace, samePlaceAmong } from '../../../../files/index.js';
import {
  Autoclear,
  allUnits,
  Compatible,
  encodeHeader,
  type Geometry,
  geometryOf,
  type Header,
  Incompatible,
  KNOWN_FEATURES,
  l1EntriesFor,
  MAX_L1_BYTES,
  MAX_REFCOUNT_TABLE_BYTES,
  type Mapped,
  magicBytes,
  type NewLayout,
  newLayout,
  RefcountCodec,
  UNMAPPED,
  writeL1Entry,
  writeMapped,
  writeRefcountTableEntry,
} from '../../../../qcow2/index.js';
import { alignUp, Turns, viewOf } from '../../../../util/index.js';
import { type BlockDevice, Device } from '../../../contract/index.js';
import { createRawFile, FileDriver } from '../../file/index.js';
import { filesBelow, GatheredWrites, pathOfNamed } from '../io/index.js';
import type { CheckedOptions, MappedClusters } from './create-options.js';

/** The table of feature names takes some 400 bytes, and must leave room for the name of a backing file. */
const SMALLEST_WITH_NAMES = 4096;
const PIECE_BYTES = 1024 * 1024;

/** Where everything of a new image lies. */
interface NewImage {
  readonly image: string;
  readonly options: CheckedOptions;
  readonly header: Header;
  readonly geometry: Geometry;
  readonly layout: NewLayout;
  readonly mapped: MappedClusters;
  readonly zeroed: MappedClusters;
  /** Numbers of clusters: where the L2 tables and the data of what is mapped begin. */
  readonly firstTable: number;
  readonly tables: number;
  readonly firstData: number;
}

const NONE: MappedClusters = { count: 0, nextDirty: () => -1, nextZero: (offset) => offset };

/**
 * Writes a new image, or replaces the content of the file that is there; see `createQcow2` and `layOutQcow2`.
 *
 * @param clusters those that are mapped, and those that are zero; none unless said.
 */
export async function writeNewImage(
  filename: string,
  options: CheckedOptions,
  {
    mapped = NONE,
    zeroed = NONE,
  }: { readonly mapped?: MappedClusters; readonly zeroed?: MappedClusters | undefined },
): Promise<void> {
  const image = resolve(filename);
  const { exclusive, mode, inode, dataFile, preallocation, signal } = options;
  const path = dataFile === undefined ? undefined : pathOfNamed(dataFile, image);
  refuseCircle(image, options, path);
  const made = layOutImage(image, options, { mapped, zeroed });
  const header = encodeHeader(made.header, image);
  if (path !== undefined && isSamePlace(path, image)) throw ownDataFile(image);
  const bytes = made.layout.total * made.geometry.clusterSize;
  await createRawFile(image, bytes, { exclusive, mode, inode });
  await using file = await openNew(image, inode);
  // Now that it is there, whatever else leads to it is seen as well.
  if (path !== undefined && isSamePlace(path, image)) throw ownDataFile(image);
  await writeRefcounts(file, made);
  if (made.tables > 0) await writeTables(file, made);
  if (dataFile === undefined && made.tables > 0) {
    const start = made.firstData * made.geometry.clusterSize;
    await reserve(file, start, { preallocation, signal });
  }
  if (path !== undefined && !options.dataFileMade) await makeDataFile(path, options);
  // Last: a file whose making was interrupted has no header, so nobody opens it as an image.
  await file.write(0, header);
}

/**
 * Writes a new image over what a device holds; see `layOutQcow2On`. All is measured first: what does not fit changes nothing.
 */
export async function writeImageOn(
  device: BlockDevice,
  options: CheckedOptions,
  { mapped, begins }: { readonly mapped: MappedClusters; begins(): void },
): Promise<void> {
  const { name, size } = device;
  const made = layOutImage(name, options, { mapped, zeroed: NONE });
  const header = encodeHeader(made.header, name);
  const { clusterSize } = made.geometry;
  const bytes = made.layout.total * clusterSize;
  if (bytes > size) {
    const message = `${name} has ${size} bytes, and the image takes ${bytes}: make it larger, or choose another one ("lacuna measure -O qcow2" tells what an image takes)`;
    throw new LacunaError('ERR_COPY_MISMATCH', message, { device: name });
  }
  const { signal } = options;
  begins();
  // What was an image before is none from now on, wherever this ends.
  await device.write(0, magicBytes({ finished: false }), { signal });
  await device.flush({ signal });
  // Of tables only what maps something is written, and of the last cluster only what the disk has of it.
  await erase(device, 0, made.firstData * clusterSize, signal);
  if (mapped.count > 0) await erase(device, bytes - clusterSize, clusterSize, signal);
  await writeRefcounts(device, made);
  if (made.tables > 0) await writeTables(device, made);
  header.set(magicBytes({ finished: false }));
  await device.write(0, header);
}

/** Bytes that a new image takes on a device. */
export function bytesOfImage(options: CheckedOptions, mapped: MappedClusters): number {
  const made = layOutImage('a new image', options, { mapped, zeroed: NONE });
  return made.layout.total * made.geometry.clusterSize;
}

/** Makes a range of a device zero, where it cannot do that by itself too. */
async function erase(
  device: BlockDevice,
  start: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (device.capabilities.zero) return await device.zero(start, length, { signal });
  await writeZeroes(device, start, length, signal);
}

/** Neither the image nor its data file must be a part of what the new image is over. */
function refuseCircle(
  image: string,
  { backing, backingIsKnown }: CheckedOptions,
  dataFile?: string,
): void {
  if (backing === undefined || backingIsKnown) return;
  const below = filesBelow(image, backing);
  const made = [image, ...(dataFile === undefined ? [] : [dataFile])];
  const found = made.find((path) => samePlaceAmong(path, below) !== undefined);
  if (found === undefined) return;
  const message = `${found} would be a file that the backing file of ${image} is made of: choose another name for the new one`;
  throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: image });
}

/** A data file that is new is taken away again where making it fails. */
async function makeDataFile(path: string, options: CheckedOptions): Promise<void> {
  const { exclusive, mode, size, preallocation: space, signal } = options;
  const isNew = exclusive || lstatSync(path, { throwIfNoEntry: false }) === undefined;
  // A raw file has no metadata.
  const preallocation = space === 'metadata' ? 'off' : space;
  await createRawFile(path, size, { exclusive: isNew, mode, preallocation, signal });
}

async function openNew(filename: string, inode?: string): Promise<BlockDevice> {
  const which = inode === undefined ? {} : { inode };
  return new Device(await FileDriver.open({ driver: 'file', filename, ...which }));
}

function ownDataFile(image: string): RangeError {
  return new RangeError(`${image} would be its own data file: name another file as dataFile`);
}

function layOutImage(
  image: string,
  options: CheckedOptions,
  { mapped, zeroed }: Pick<NewImage, 'mapped' | 'zeroed'>,
): NewImage {
  const { size, clusterSize, dataFile, refcountBits, version } = options;
  const clusterBits = Math.log2(clusterSize);
  const refcountOrder = Math.log2(refcountBits);
  const incompatible = incompatibleOf(options);
  const geometry = geometryOf({ clusterBits, incompatible, refcountOrder });
  const l1Size = Math.max(1, l1EntriesFor(size, geometry));
  if (l1Size * 8 > MAX_L1_BYTES) {
    const most = (MAX_L1_BYTES / 8) * geometry.l2Span;
    throw new RangeError(
      `${size} bytes are too many for clusters of ${clusterSize}: at most ${most}`,
    );
  }
  const l1Clusters = Math.ceil((l1Size * 8) / clusterSize);
  const tables = countTables({ mapped, zeroed }, geometry);
  const clusters = dataFile === undefined ? mapped.count : 0;
  const rest = l1Clusters + tables + clusters;
  const layout = newLayout(rest, clusterSize, geometry.refcountBlockEntries);
  if (layout.tableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
    throw new RangeError(`${size} bytes cannot be preallocated in clusters of ${clusterSize}`);
  }
  const header: Header = {
    version,
    clusterBits,
    size,
    l1Size,
    l1Offset: layout.rest * clusterSize,
    refcountTableOffset: clusterSize,
    refcountTableClusters: layout.tableClusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible,
    compatible: options.lazyRefcounts ? Compatible.lazyRefcounts : 0n,
    autoclear: options.dataFileRaw ? Autoclear.rawDataFile : 0n,
    refcountOrder,
    compression: options.compressionType,
    additional: new Uint8Array(0),
    extensions: {
      backingFormat: options.backing?.format,
      // QEMU looks for a relative name in the folder that it runs in, so only a whole path is found by everybody.
      dataFile: dataFile === undefined ? undefined : pathOfNamed(dataFile, image),
      featureNames: version === 3 && clusterSize >= SMALLEST_WITH_NAMES ? KNOWN_FEATURES : [],
      unknown: [],
    },
    backingFile: options.backing?.filename,
  };
  const firstTable = layout.rest + l1Clusters;
  return {
    image,
    options,
    header,
    geometry,
    layout,
    mapped,
    zeroed,
    firstTable,
    tables,
    firstData: firstTable + tables,
  };
}

function incompatibleOf(options: CheckedOptions): bigint {
  let bits = 0n;
  if (options.dataFile !== undefined) bits |= Incompatible.dataFile;
  if (options.compressionType !== 'deflate') bits |= Incompatible.compression;
  if (options.extendedL2) bits |= Incompatible.extendedL2;
  return bits;
}

/** The refcount table and its blocks: every cluster of the new file is used once. */
async function writeRefcounts(
  file: BlockDevice,
  { geometry, header, layout, options }: NewImage,
): Promise<void> {
  const { clusterSize, refcountBlockEntries } = geometry;
  const codec = new RefcountCodec(header.refcountOrder);
  const first = 1 + layout.tableClusters;
  const table = new Uint8Array(layout.tableClusters * clusterSize);
  const block = new Uint8Array(clusterSize);
  const turns = new Turns();
  let left = layout.total;
  let filled = 0;
  for (let index = 0; index < layout.blocks; index++) {
    throwIfAborted(options.signal);
    const used = Math.min(left, refcountBlockEntries);
    for (; filled < used; filled++) codec.set(block, filled, 1);
    for (; filled > used; filled--) codec.set(block, filled - 1, 0);
    await file.write((first + index) * clusterSize, block);
    writeRefcountTableEntry(viewOf(table), index * 8, (first + index) * clusterSize);
    left -= used;
    await turns.next();
  }
  await file.write(header.refcountTableOffset, table);
}

/** L2 tables that map something. */
function countTables(clusters: Pick<NewImage, 'mapped' | 'zeroed'>, { l2Span }: Geometry): number {
  let tables = 0;
  for (let at = nextOf(clusters, 0); at >= 0; at = nextOf(clusters, at - (at % l2Span) + l2Span)) {
    tables++;
  }
  return tables;
}

/** The first cluster from `offset` on that is mapped or zeroed; -1 where there is none. */
function nextOf({ mapped, zeroed }: Pick<NewImage, 'mapped' | 'zeroed'>, offset: number): number {
  const [first, second] = [mapped.nextDirty(offset), zeroed.nextDirty(offset)];
  if (first < 0 || second < 0) return Math.max(first, second);
  return Math.min(first, second);
}

/** Calls back for each cluster of a range that is in a set. */
function forEachIn(
  clusters: MappedClusters,
  { start, stop, step }: { start: number; stop: number; step: number },
  visit: (offset: number) => void,
): void {
  for (let at = clusters.nextDirty(start, stop); at >= 0; at = clusters.nextDirty(at, stop)) {
    const zero = clusters.nextZero(at, stop);
    const end = zero < 0 ? stop : zero;
    for (; at < end; at += step) visit(at);
    if (at >= stop) return;
  }
}

/** The L1 table and the L2 tables: all clusters in a row. Of a table only the part is written that maps something. */
async function writeTables(file: BlockDevice, made: NewImage): Promise<void> {
  const { header, geometry, options, mapped, zeroed, firstTable, firstData } = made;
  const { clusterSize, l2EntryBytes, l2Span } = geometry;
  const all = allUnits(geometry);
  // Over a backing file, subclusters are reserved and still show it; unless it has been asked for what is zeroed.
  const allocated = options.backing === undefined || zeroed !== NONE ? all : 0;
  const l1 = new Uint8Array(header.l1Size * 8);
  const table = new Uint8Array(clusterSize);
  const writes = new GatheredWrites(file);
  const turns = new Turns();
  let offset = firstTable * clusterSize;
  let host = firstData * clusterSize;
  for (let at = nextOf(made, 0); at >= 0; ) {
    throwIfAborted(options.signal);
    const start = at - (at % l2Span);
    const stop = Math.min(start + l2Span, alignUp(options.size, clusterSize));
    const range = { start: at, stop, step: clusterSize };
    const placeOf = (guest: number) => ((guest - start) / clusterSize) * l2EntryBytes;
    const from = placeOf(at);
    let to = from;
    const put = (guest: number, entry: Mapped) => {
      writeMapped(table, placeOf(guest), entry, geometry);
      to = Math.max(to, placeOf(guest) + l2EntryBytes);
    };
    forEachIn(mapped, range, (guest) => {
      const place = options.dataFile === undefined ? host : guest;
      put(guest, { host: place, copied: true, allocated, zero: 0 });
      host += clusterSize;
    });
    forEachIn(zeroed, range, (guest) => put(guest, { ...UNMAPPED, zero: all }));
    await writes.write(offset + from, table.subarray(from, to));
    table.fill(0, from, to);
    writeL1Entry(viewOf(l1), (start / l2Span) * 8, { offset, copied: true });
    offset += clusterSize;
    at = nextOf(made, start + l2Span);
    await turns.next();
  }
  await writes.end();
  await file.write(header.l1Offset, l1);
}

/** Reserves the space of a file that reads as zero from `start` on. */
async function reserve(
  file: BlockDevice,
  start: number,
  { preallocation, signal }: Pick<CheckedOptions, 'preallocation' | 'signal'>,
): Promise<void> {
  const length = file.size - start;
  if (length === 0 || preallocation === 'off' || preallocation === 'metadata') return;
  if (preallocation === 'falloc') return file.zero(start, length, { unmap: false, signal });
  await writeZeroes(file, start, length, signal);
}

async function writeZeroes(
  file: BlockDevice,
  start: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const zeroes = new Uint8Array(Math.min(PIECE_BYTES, length));
  const turns = new Turns();
  for (let at = 0; at < length; at += zeroes.length) {
    throwIfAborted(signal);
    await file.write(start + at, zeroes.subarray(0, Math.min(zeroes.length, length - at)));
    await turns.next();
  }
}
