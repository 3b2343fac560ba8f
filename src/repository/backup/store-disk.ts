/** Stores what a point holds of a disk: an image, and the leaves of its digests. */
import fs from 'node:fs';
import { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { copy } from '../../copy/index.js';
import { syncFolder } from '../../files/index.js';
import type { DiskDigests } from '../disks/index.js';
import type { MachinePlaces, RepositoryOperations } from '../layout/index.js';
import {
  DIGEST_BLOCK,
  GatheredDigests,
  LeafChain,
  LeafFile,
  writeLeaves,
} from '../leaves/index.js';
import type { ImageState } from '../manifest/index.js';
import { runCopy, type Workshop } from '../work/index.js';
import { type EarlierRun, hashEarlier } from './hash-earlier.js';
import { hashImage } from './hash-image.js';
import { paddedDevice } from './padded-device.js';

/** What drives the copies. */
export interface Drive extends Workshop {
  readonly compress?: 'deflate' | 'zstd' | undefined;
}

const NOWHERE = { target: { driver: 'null' }, detectZeroes: 'off', flush: false } as const;

/** Finds the blocks that have other digests than at the parent point, by reading all that the source calls data. */
export async function findChanged(
  device: BlockDevice,
  parent: DiskDigests,
  drive: Drive,
): Promise<{ dirty: Bitmap; readBytes: number }> {
  const dirty = blocksWithData(device, parent);
  try {
    const { size } = device;
    const onBlock = (block: number, digest: Uint8Array) => {
      const offset = block * DIGEST_BLOCK;
      const length = Math.min(DIGEST_BLOCK, size - offset);
      if (parent.leaves.digestOf(block).equals(digest)) dirty.reset(offset, length);
      else dirty.set(offset, length);
    };
    const job = copy({ ...NOWHERE, ...driveOf(drive), source: device, onBlock, allowEmpty: true });
    drive.tally.begin('compare', { disk: parent.name });
    const { movedBytes } = await runCopy(drive, job);
    return { dirty, readBytes: movedBytes };
  } catch (error) {
    dirty.free();
    throw error;
  }
}

/** What was something at the parent point, and is changed unless it is read as the same. */
function blocksWithData({ size }: BlockDevice, { leaves }: DiskDigests): Bitmap {
  const dirty = new Bitmap({ size, granularity: DIGEST_BLOCK });
  for (const block of leaves.dataBlocks(0, Math.ceil(size / DIGEST_BLOCK))) {
    const offset = block * DIGEST_BLOCK;
    dirty.set(offset, Math.min(DIGEST_BLOCK, size - offset));
  }
  return dirty;
}

function driveOf({ threads, control }: Drive) {
  return { signal: control.signal, ...(threads !== undefined && { threads }) };
}

type Parent = Pick<DiskDigests, 'layers' | 'files' | 'leaves'> & { readonly number: number | null };

/** What is stored. */
export interface NewImage {
  readonly places: MachinePlaces;
  readonly disk: string;
  /** Of the image, without a folder. */
  readonly filename: string;
  /** Of its leaves. */
  readonly leavesName: string;
  readonly source: BlockDevice;
  /** What the image lies over, and the number of the point below that. */
  readonly parent: Parent | undefined;
  /** The blocks that it takes in; undefined for all data of the source. */
  readonly dirty: Bitmap | undefined;
  /** The resume file of the copy; absent where nobody could go on with it. */
  readonly resume?: string | undefined;
  /** Told of each block that is stored; what it throws ends it. */
  check?(block: number, digest: Uint8Array): void;
}

/** An image that is stored, and durable. */
export interface StoredImage {
  readonly file: ImageState;
  /** Of the disk. */
  readonly digest: string;
  /** Bytes read from the source, and stored as data. */
  readonly movedBytes: number;
  /** Bytes that an earlier run had stored as data. */
  readonly resumedBytes: number;
  readonly warnings: readonly string[];
  /** Bytes that the image says are zero, where what lies below may hold something else. */
  readonly zeroedBytes: number;
  /** Bytes that the files take. */
  readonly storedBytes: number;
}

/** Stores an image and its leaves. */
export async function storeImage(
  image: NewImage,
  drive: Drive,
  operations: RepositoryOperations,
): Promise<StoredImage> {
  const { places, disk, filename, leavesName, source, parent, dirty } = image;
  const path = places.file(disk, filename);
  const digests = new GatheredDigests(source.size, path);
  try {
    const { movedBytes, resumedBytes, warnings } = await copyOrGoOn(image, path, digests, drive);
    await syncFolder(path);
    const held = dirty ?? digests.data;
    const leavesPath = places.file(disk, leavesName);
    // What is compressed lies in the file in another form.
    const stored = { filename: path, held: drive.compress === undefined ? digests : undefined };
    const { file, digest: fileDigest } = await hashImage(stored, drive);
    try {
      const below = parent?.leaves;
      const leaves = writeLeaves({ path: leavesPath, held, digests, below, file }, operations);
      const own = LeafFile.open(leavesPath, leaves);
      const digest = rootOver(own, parent);
      const state = { name: filename, parent: parent?.number ?? null, size: file.size };
      const { blocks } = fs.statSync(path);
      const storedBytes = blocks * 512 + leaves.size;
      const zeroedBytes = held.dirtyBytes - digests.data.dirtyBytes;
      const compression = drive.compress ?? null;
      const described = { ...state, digest: fileDigest, compression, leaves };
      const bytes = { movedBytes, resumedBytes, zeroedBytes, storedBytes };
      return { file: described, digest, ...bytes, warnings };
    } finally {
      file.free();
    }
  } finally {
    digests.free();
  }
}

function rootOver(own: LeafFile, parent: Parent | undefined): string {
  try {
    return new LeafChain([own, ...(parent?.files ?? [])]).root();
  } finally {
    own.close();
  }
}

/** What a copy has done, and what had been done before. */
type Copied = Pick<StoredImage, 'movedBytes' | 'resumedBytes' | 'warnings'>;

/** Copies the image, or what an earlier run has left of it, and has the digests of all that it holds in the end. */
async function copyOrGoOn(
  image: NewImage,
  path: string,
  digests: GatheredDigests,
  drive: Drive,
): Promise<Copied> {
  const { source, resume } = image;
  if (resume === undefined) return await copyImage(image, path, digests, drive);
  using heard = new Bitmap({ size: source.size, granularity: DIGEST_BLOCK });
  const taker: EarlierRun = { path, digests, heard };
  // The image has this name only when it is whole. Then the copy had ended, and its notes went last.
  if (fs.existsSync(path) && !fs.existsSync(resume)) {
    return { movedBytes: 0, resumedBytes: await hashEarlier(taker, drive), warnings: [] };
  }
  const listening = {
    add(block: number, digest: Uint8Array) {
      const offset = block * DIGEST_BLOCK;
      if (offset < source.size) heard.set(offset, Math.min(DIGEST_BLOCK, source.size - offset));
      digests.add(block, digest);
    },
  };
  const copied = await copyImage(image, path, listening, drive);
  if (copied.resumedBytes === 0) return copied;
  return { ...copied, resumedBytes: await hashEarlier(taker, drive) };
}

async function copyImage(
  { source: disk, parent, dirty: blocks, resume, check }: NewImage,
  filename: string,
  digests: Pick<GatheredDigests, 'add'>,
  drive: Drive,
): Promise<Copied> {
  const { compress } = drive;
  const source = paddedDevice(disk);
  const dirty = blocks?.snapshot();
  dirty?.resize(source.size);
  const backing = parent && { filename: parent.layers[0].state.name, format: 'qcow2' };
  const job = copy({
    ...driveOf(drive),
    source,
    target: { driver: 'qcow2', file: { driver: 'file', filename } },
    image: { ...(compress && { compressionType: compress }), ...(backing && { backing }) },
    // The images below are as their manifests say, and nobody else has a file of this name.
    baseIsKnown: true,
    ...(compress && { compress: true }),
    ...(dirty && { bitmap: dirty }),
    ...(resume !== undefined && { resume }),
    allowEmpty: true,
    onBlock: (block, digest) => {
      check?.(block, digest);
      digests.add(block, digest);
    },
  });
  try {
    return await runCopy(drive, job);
  } finally {
    dirty?.free();
  }
}
