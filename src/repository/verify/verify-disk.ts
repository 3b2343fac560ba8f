/** Verifies what one point holds of one disk: its files, and what its image shows. */
import { Bitmap } from '../../bitmap/index.js';
import { openDevice } from '../../block/index.js';
import { isAborted, LacunaError } from '../../errors/index.js';
import { counted } from '../../util/index.js';
import { type Layer, type MachinePoints, OpenDisk } from '../disks/index.js';
import { DIGEST_BLOCK, DIGEST_BYTES, type LeafFile } from '../leaves/index.js';
import type { Workshop } from '../work/index.js';
import { compareBlocks } from './compare-blocks.js';
import type { Problem } from './options.js';
import type { Sample } from './sample.js';

export interface DiskVerification {
  readonly points: MachinePoints;
  readonly number: number;
  readonly name: string;
  /** What is read of all bytes. */
  readonly sample: Sample;
  readonly workshop: Workshop;
  found(problem: Problem): void;
  /** Told of bytes that were read. */
  read(bytes: number): void;
}

/** Of a disk no more ranges are told one by one. */
const MOST_RANGES = 20;

/** Never fails but when it is aborted: what it meets is told as a problem. */
export async function verifyDisk(verification: DiskVerification): Promise<void> {
  const { points, number, name, workshop, found } = verification;
  const problem = problemOf(verification);
  try {
    await using disk = await OpenDisk.open(points, number, name, workshop.control.ending);
    const steps = [checkLeaves, checkBackingName, checkImageFiles, checkDisk];
    for (const step of steps) {
      try {
        await step(disk, verification);
      } catch (error) {
        if (isEnd(error)) throw error;
        found(problem(error));
      }
    }
  } catch (error) {
    if (isEnd(error)) throw error;
    found(problem(error));
  }
}

/** The job is to end, by its signal or because somebody stops it. */
function isEnd(error: unknown): boolean {
  const isStopped = error instanceof LacunaError && error.code === 'ERR_JOB_STOPPED';
  return isStopped || isAborted(error);
}

function problemOf({ points, number, name }: DiskVerification): (error: unknown) => Problem {
  return (error) => {
    const where = { machine: points.machine, point: number, disk: name };
    const what = error instanceof Error ? error.message : String(error);
    const start = `Point ${number} of ${points.machine}: disk ${name}: `;
    const message = what.startsWith('Point ') ? what : start + what;
    if (!(error instanceof LacunaError)) return { ...where, message };
    const { device: file, offset, length } = error;
    const place = offset === undefined ? {} : { offset, length };
    return { ...where, ...(file !== undefined && { file }), ...place, message };
  };
}

/** Its own image, and those that it has kept of points which are gone; what lies below is verified with its own point. */
function ownImages({ layers }: OpenDisk): number {
  const next = layers.findIndex(({ isGone }, index) => index > 0 && !isGone);
  return next === -1 ? layers.length : next;
}

async function checkLeaves(disk: OpenDisk): Promise<void> {
  for (let i = 0; i < ownImages(disk); i++) disk.files[i].check(disk.layers[i].state.leaves);
}

/** Other programs follow the name in the image. */
async function checkBackingName(disk: OpenDisk): Promise<void> {
  for (let i = 0; i < ownImages(disk); i++) {
    const [own, below] = disk.layers.slice(i);
    await using device = await openDevice({
      driver: 'qcow2',
      file: { driver: 'file', filename: own.path },
      backing: null,
    });
    const name = device.details?.backingFile;
    if (name === below?.state.name) continue;
    const message = `${own.path} names the backing file ${name}, and lies over ${below?.state.name}`;
    throw new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: own.path });
  }
}

async function checkImageFiles(disk: OpenDisk, verification: DiskVerification): Promise<void> {
  for (let i = 0; i < ownImages(disk); i++) {
    await checkImageFile(disk.layers[i], disk.files[i], verification);
  }
}

async function checkImageFile(
  { path: filename, state }: Layer,
  leaves: LeafFile,
  verification: DiskVerification,
): Promise<void> {
  const { size } = state;
  const all = new Bitmap({ size, granularity: DIGEST_BLOCK });
  all.setAll();
  const source = { driver: 'file', filename } as const;
  const digestOf = digestsOfFile(leaves);
  const what = `${filename} was changed since it was written`;
  await compare(verification, { source, wanted: all, digestOf, what, file: filename });
}

/** The digests of the bytes of the image file, many read at once. */
function digestsOfFile(leaves: LeafFile): (block: number) => Uint8Array {
  const COUNT = 2048;
  const held = new Map<number, Buffer>();
  return (block) => {
    const group = Math.floor(block / COUNT);
    let digests = held.get(group);
    if (digests === undefined) {
      if (held.size > 64) held.clear();
      digests = leaves.fileDigests(group * COUNT, COUNT);
      held.set(group, digests);
    }
    const at = (block % COUNT) * DIGEST_BYTES;
    return digests.subarray(at, at + DIGEST_BYTES);
  };
}

/** What these images hold. */
async function checkDisk(disk: OpenDisk, verification: DiskVerification): Promise<void> {
  const { device, files, layers, leaves, name } = disk;
  const held = new Bitmap({ size: device.size, granularity: DIGEST_BLOCK });
  const runs = files.slice(0, ownImages(disk)).flatMap((file) => file.runs);
  for (const { first, blocks } of runs) {
    const offset = first * DIGEST_BLOCK;
    // One that is gone may have been longer.
    if (offset >= device.size) continue;
    held.set(offset, Math.min(blocks * DIGEST_BLOCK, device.size - offset));
  }
  const digestOf = (block: number) => leaves.digestOf(block);
  const what = `disk ${name} holds other bytes than were backed up`;
  await compare(verification, {
    source: device,
    wanted: held,
    digestOf,
    what,
    file: layers[0].path,
  });
}

interface Compared {
  readonly source: Parameters<typeof compareBlocks>[0]['source'];
  /** Freed by {@link compare}. */
  readonly wanted: Bitmap;
  readonly what: string;
  readonly file: string;
  digestOf(block: number): Uint8Array;
}

async function compare(
  verification: DiskVerification,
  { source, wanted, digestOf, what, file }: Compared,
): Promise<void> {
  const { number, points, name, sample, workshop, read, found } = verification;
  try {
    sample.keepIn(wanted);
    workshop.tally.begin('read', { machine: points.machine, point: number, disk: name });
    const comparison = { source, blocks: wanted, digestOf, workshop };
    const { ranges, readBytes } = await compareBlocks(comparison);
    read(readBytes);
    for (const { offset, length } of ranges.slice(0, MOST_RANGES)) {
      const where = { machine: points.machine, point: number, disk: name, file, offset, length };
      const start = `Point ${number} of ${points.machine}: disk ${name}: ${what}`;
      found({ ...where, message: `${start}: ${counted(length, 'byte')} at ${offset} (${file})` });
    }
    if (ranges.length > MOST_RANGES) {
      throw new LacunaError('ERR_REPOSITORY_DAMAGED', `${what} in ${ranges.length} places`, {
        device: file,
      });
    }
  } finally {
    wanted.free();
  }
}
