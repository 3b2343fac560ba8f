/** How a disk is backed up, and why: all of it, what a bitmap or the caller says, or what has other digests. */
import { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { plan } from '../../copy/index.js';
import { counted } from '../../util/index.js';
import {
  DiskDigests,
  differences,
  layersOf,
  type MachinePoints,
  withDigests,
} from '../disks/index.js';
import { DIGEST_BLOCK } from '../leaves/index.js';
import type { BackupMode } from '../manifest/index.js';
import { isDamage } from '../manifest/index.js';
import type { BackupDisk, BackupOptions, ParentPoint } from './options.js';
import { findBitmap } from './source-bitmaps.js';

/** Images of a chain at most. */
const LONGEST_CHAIN = 100;

export interface Decision {
  readonly mode: BackupMode;
  readonly reason: string;
  /** What the increment is taken over; the caller closes it. */
  readonly parent: DiskDigests | undefined;
  /** Blocks that may have changed; undefined where they must be found by reading. The caller frees it. */
  readonly dirty: Bitmap | undefined;
}

export interface Question {
  readonly points: MachinePoints;
  readonly repository: string;
  readonly disk: BackupDisk;
  readonly device: BlockDevice;
  readonly options: Pick<BackupOptions, 'full' | 'longestChain' | 'signal'>;
}

export async function decide(question: Question): Promise<Decision> {
  const parent = await parentFor(question);
  if (typeof parent === 'string') {
    return { mode: 'full', reason: parent, parent: undefined, dirty: undefined };
  }
  try {
    return { ...(await increment(question, parent)), parent };
  } catch (error) {
    await parent.close();
    throw error;
  }
}

/** The point that an increment can be taken over, or why no increment can be taken. */
async function parentFor({ points, disk, options }: Question): Promise<DiskDigests | string> {
  const { full = false, longestChain = LONGEST_CHAIN, signal } = options;
  if (full) return 'all of it was asked for';
  const { newest } = points;
  if (newest === undefined) return 'there is no earlier point';
  if (points.problems.length > 0) return `a manifest is damaged: ${points.problems[0].message}`;
  const { number, disks } = newest;
  if (!disks.some(({ name }) => name === disk.name)) return `point ${number} has no such disk`;
  signal?.throwIfAborted();
  let length: number;
  try {
    const layers = await layersOf(points, number, disk.name);
    ({ length } = layers);
    if (length < longestChain) return await DiskDigests.over(points, number, disk.name, layers);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return `point ${number} is damaged: ${error.message}`;
  }
  return `the chain of point ${number} has ${counted(length, 'image')}, and may have no more than ${longestChain}`;
}

async function increment(
  { points, repository, disk, device }: Question,
  parent: DiskDigests,
): Promise<Omit<Decision, 'parent'>> {
  const over = `over point ${parent.number}`;
  const chain = parent.layers.filter(({ isGone }) => !isGone);
  const generations = chain.map(({ number }) => points.idOf(number));
  const asked = { number: parent.number, id: generations[0], generations, size: parent.size };
  const given = await givenChanges(disk, asked, device);
  if (given !== undefined) {
    return { mode: 'given', reason: `${over}, by what the caller says has changed`, dirty: given };
  }
  if (device.size < parent.size) {
    const reason = `${over}, by comparing digests: the disk has become smaller`;
    return { mode: 'digests', reason, dirty: undefined };
  }
  const found = await findBitmap(device, repository, disk.name, generations);
  if ('why' in found) {
    return {
      mode: 'digests',
      reason: `${over}, by comparing digests: ${found.why}`,
      dirty: undefined,
    };
  }
  const dirty = blocksIn(found.bitmap, device.size);
  found.bitmap.free();
  try {
    if (found.index > 0) await addSince(chain[found.index].number, dirty, parent);
  } catch (error) {
    dirty.free();
    if (!isDamage(error)) throw error;
    const reason = `${over}, by comparing digests: ${error.message}`;
    return { mode: 'digests', reason, dirty: undefined };
  }
  return { mode: 'bitmap', reason: `${over}, by bitmap ${found.name}`, dirty };
}

/**
 * Adds what changed from an older point to the parent. A bitmap that counts from the older one says nothing of it where the
 * disk was put back to how it was in between. By digests alone, so it costs no reading of the disk.
 */
async function addSince(number: number, dirty: Bitmap, parent: DiskDigests): Promise<void> {
  const { points, name } = parent;
  const since = await withDigests(points, number, name, async (older) =>
    differences(parent, older),
  );
  try {
    since.resize(dirty.size);
    // Behind its end the parent holds nothing, and the older one may have.
    if (dirty.size > parent.size) dirty.set(parent.size, dirty.size - parent.size);
    dirty.merge(since);
  } finally {
    since.free();
  }
}

async function givenChanges(
  { changes }: BackupDisk,
  parent: ParentPoint,
  { size }: BlockDevice,
): Promise<Bitmap | undefined> {
  const given = await changes?.(parent);
  if (given === undefined) return undefined;
  if (given instanceof Bitmap) return blocksIn(given, size);
  const dirty = new Bitmap({ size, granularity: DIGEST_BLOCK });
  for (const { offset, length } of given) dirty.set(offset, length);
  return dirty;
}

/** The blocks that are dirty in a bitmap. */
function blocksIn(bitmap: Bitmap, size: number): Bitmap {
  const dirty = new Bitmap({ size, granularity: DIGEST_BLOCK, arena: bitmap.arena });
  const bits = bitmap.snapshot();
  try {
    // The bitmap of an image counts up to the next 512 bytes.
    bits.resize(size);
    dirty.merge(bits);
    return dirty;
  } finally {
    bits.free();
  }
}

/**
 * Adds what reads as zero by its status, and was something else at the parent point, to what is dirty. A bitmap says nothing of
 * it where the disk was made smaller and larger again: QEMU adds the new end as clean. And it adds what is cut off inside the last
 * block, and what is data behind the old end: QEMU leaves old bytes there in a cluster that a shorter disk has cut.
 */
export async function addHidden(
  dirty: Bitmap,
  device: BlockDevice,
  parent: DiskDigests,
  signal?: AbortSignal,
): Promise<void> {
  if (device.size < parent.size && device.size % DIGEST_BLOCK !== 0) dirty.set(device.size - 1, 1);
  const { data, zero } = await plan({ source: device, granularity: DIGEST_BLOCK, signal });
  try {
    if (device.size > parent.size) {
      const from = Math.floor(parent.size / DIGEST_BLOCK) * DIGEST_BLOCK;
      for (const { offset, length } of data.ranges(from)) dirty.set(offset, length);
    }
    zero.subtract(dirty);
    for (const { offset, length } of zero.ranges()) {
      const end = Math.ceil((offset + length) / DIGEST_BLOCK);
      for (const block of parent.leaves.dataBlocks(offset / DIGEST_BLOCK, end)) {
        const at = block * DIGEST_BLOCK;
        dirty.set(at, Math.min(DIGEST_BLOCK, device.size - at));
      }
    }
  } finally {
    data.free();
    zero.free();
  }
}
