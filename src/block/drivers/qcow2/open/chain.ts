/** Opens the files of an image: its own, its data file and, through the drivers of their own, its backing files. */
import { dirname, resolve } from 'node:path';
import { LacunaError } from '../../../../errors/index.js';
import {
  cutShort,
  type Header,
  hasDataFile,
  Incompatible,
  isNoImage,
  type Snapshot,
} from '../../../../qcow2/index.js';
import {
  type BlockDevice,
  type DeviceDescription,
  type Opening,
  plainFile,
} from '../../../contract/index.js';
import {
  describeBacking,
  findSnapshot,
  identityOf,
  type Naming,
  type Qcow2Description,
  readHeader,
  readSnapshots,
  realFolders,
  refused,
  resolveNamed,
} from '../io/index.js';
import type { ImageParts } from '../read/index.js';

/** Backing files behind one another. */
const MOST_BACKING_FILES = 200;

/** As what an image uses the devices below it. */
const FILE = { key: 'file', role: 'image' } as const;
const DATA = { key: 'data-file', role: 'data file' } as const;
const BACKING = { key: 'backing', role: 'below' } as const;

/** All that belongs to an image, opened. */
export interface OpenedParts extends ImageParts {
  readonly backing?: BlockDevice;
  readonly snapshots: readonly Snapshot[];
  /** Every device that was opened, to be closed with the image. */
  readonly devices: readonly BlockDevice[];
  /** The description with all that was found. */
  readonly description: Qcow2Description;
}

/** @throws what opening a file throws, and LacunaError ERR_IMAGE_CHAIN; nothing stays open then. */
export async function openParts(
  description: Qcow2Description,
  opening: Opening,
): Promise<OpenedParts> {
  const devices: BlockDevice[] = [];
  const open = async (part: DeviceDescription, below: Partial<Opening> = {}) => {
    const shared = description['force-share'] === true && { 'force-share': true };
    const device = await opening.open({ ...part, ...shared }, { ...opening, ...below });
    devices.push(device);
    return device;
  };
  try {
    return await openAll(description, opening, { open, devices });
  } catch (error) {
    await Promise.allSettled(devices.map((device) => device.close()));
    throw error;
  }
}

interface Opener {
  open(part: DeviceDescription, below?: Partial<Opening>): Promise<BlockDevice>;
  readonly devices: readonly BlockDevice[];
}

async function openAll(
  description: Qcow2Description,
  opening: Opening,
  { open, devices }: Opener,
): Promise<OpenedParts> {
  const readOnly = description['read-only'] === true;
  const grows = !readOnly && description.mapping === undefined;
  const rescue = description.rescue ?? opening.rescue ?? false;
  if (rescue && !readOnly) {
    throw new TypeError('rescue is for reading only: do not open the image for writing');
  }
  const file = await open({ ...description.file, 'read-only': readOnly }, { grows, as: FILE });
  const own = file.description ?? description.file;
  const above = [...opening.above, identityOf(file.path)];
  checkChain(file.name, above);
  const found = await readHeader(file, { unfinished: description.mapping === 'unfinished' });
  if (!rescue) checkRefcounts(found, file);
  checkWritable(found, file, description);
  const header = grows ? await repaired(file, found, opening.signal) : found;
  const snapshots = await readSnapshots(file, header).catch((error) => {
    if (rescue && description.snapshot === undefined && isCorrupt(error)) return [];
    throw error;
  });
  const wanted = description.snapshot;
  const snapshot = wanted === undefined ? undefined : findSnapshot(wanted, snapshots, file.name);
  if (snapshot !== undefined && !readOnly) throw readOnlySnapshot(snapshot, file);
  const folders = foldersOf(description, opening, file);
  const names = { image: file.path, folders, file, header };

  const data = describeDataFile(description, names, above);
  const dataFile = data && (await open({ ...data, 'read-only': readOnly }, { grows, as: DATA }));
  const below = describeBackingFile(description, names);
  const opens = { folders, above, rescue, grows: false, as: BACKING };
  const backing =
    below &&
    (await open({ ...below, 'read-only': true }, opens).catch((error) => {
      throw description.backing === undefined ? misnamed(error, below, header, file) : error;
    }));
  const opened: Qcow2Description = {
    ...description,
    file: own,
    backing: backing === undefined ? null : (backing.description ?? below),
    ...(dataFile !== undefined && { 'data-file': dataFile.description ?? data }),
  };
  const parts = { header, file, dataFile, snapshot, snapshots, backing, rescue };
  return { ...parts, devices, description: opened };
}

/** The header of an image that is going to be written, with refcounts that are right; few images are opened for that. */
async function repaired(file: BlockDevice, found: Header, signal?: AbortSignal): Promise<Header> {
  const { repairRefcounts } = await import('../repair/index.js');
  return await repairRefcounts(file, found, signal);
}

/** A chain that comes back to a file of its own would have no end. */
function checkChain(image: string, files: ReadonlyArray<string | undefined>): void {
  const last = files.at(-1);
  const again = last !== undefined && files.indexOf(last) < files.length - 1;
  if (!again && files.length <= MOST_BACKING_FILES + 1) return;
  const problem = again
    ? 'is its own backing file, some way down: the chain goes in a circle'
    : `has more than ${MOST_BACKING_FILES} images above it: commit some of them first`;
  throw new LacunaError('ERR_IMAGE_CHAIN', `${image} ${problem}`, { device: image });
}

/**
 * Who reads needs no refcounts, but a file that does not have them is cut short, whatever else it has. As to QEMU, the last
 * cluster of a file may be there in part.
 */
function checkRefcounts(
  { refcountTableOffset: offset, refcountTableClusters, clusterBits }: Header,
  { name, end }: BlockDevice,
): void {
  if (refcountTableClusters === 0) return;
  if (offset + (refcountTableClusters - 1) * 2 ** clusterBits < end) return;
  throw cutShort(name, 'the refcount table', { offset, end });
}

function isCorrupt(error: unknown): boolean {
  return error instanceof LacunaError && error.code === 'ERR_QCOW2_CORRUPT';
}

function checkWritable(header: Header, file: BlockDevice, description: Qcow2Description): void {
  const isMarked = (header.incompatible & Incompatible.corrupt) !== 0n;
  if (!isMarked || description['read-only'] === true) return;
  const message = `${file.name} is marked as corrupt, so it is not written: repair a copy of it with "lacuna check -r all"`;
  throw new LacunaError('ERR_QCOW2_CORRUPT', message, { device: file.name });
}

function readOnlySnapshot({ name }: Snapshot, file: BlockDevice): LacunaError {
  const message = `${file.name} is named with snapshot "${name}", which can only be read: leave "snapshot" out to write the disk as it is now, or copy the snapshot into an image of its own`;
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: file.name });
}

/** An image says the format of its backing file by itself: what is said of the image does not change it. */
function misnamed(
  error: unknown,
  below: DeviceDescription,
  { backingFile }: Header,
  { name }: BlockDevice,
): unknown {
  const path = 'file' in below ? plainFile(below.file)?.filename : undefined;
  if (path === undefined || !isNoImage(error, path)) return error;
  const message = `The backing file "${backingFile}" of ${name} is not a qcow2 image, by its first bytes, although the image says so: check the path, or correct its format ("lacuna rebase -u -F raw -b FILE IMAGE")`;
  return new LacunaError('ERR_IMAGE_CHAIN', message, { device: name, cause: error });
}

/** The folders of the caller hold for the whole chain: an image below does not widen them. */
function foldersOf(
  description: Qcow2Description,
  opening: Opening,
  { path }: BlockDevice,
): readonly string[] {
  const { 'backing-folders': said } = description;
  if (said !== undefined) return realFolders(said);
  if (opening.folders !== undefined) return opening.folders;
  return path === undefined ? [] : realFolders([dirname(resolve(path))]);
}

interface Names {
  readonly image: string | undefined;
  readonly folders: readonly string[];
  readonly file: BlockDevice;
  readonly header: Header;
}

function describeBackingFile(
  { backing }: Qcow2Description,
  { header, file, image, folders }: Names,
): DeviceDescription | undefined {
  if (backing !== undefined) return backing ?? undefined;
  if (header.backingFile === undefined) return undefined;
  const naming: Naming = { image, name: file.name, what: 'backing file', key: 'backing', folders };
  const path = resolveNamed(header.backingFile, naming);
  return describeBacking(path, header.extensions.backingFormat, naming);
}

function describeDataFile(
  { 'data-file': said }: Qcow2Description,
  { header, file, image, folders }: Names,
  above: ReadonlyArray<string | undefined>,
): DeviceDescription | undefined {
  const naming: Naming = { image, name: file.name, what: 'data file', key: 'data-file', folders };
  if (!hasDataFile(header)) {
    if (said === undefined) return undefined;
    const message = `${file.name} keeps its data in itself: leave out "data-file"`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: file.name });
  }
  const { dataFile: named } = header.extensions;
  if (said === undefined && named === undefined) {
    const message = `${file.name} has an external data file and does not name it: say it as "data-file"`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: file.name });
  }
  const wanted = said ?? ({ driver: 'file', filename: resolveNamed(named!, naming) } as const);
  const identity = identityOf(plainFile(wanted)?.filename);
  if (identity === undefined || !above.includes(identity)) return wanted;
  throw refused(naming, named ?? 'said', 'is an image of this chain itself: name the right one');
}
