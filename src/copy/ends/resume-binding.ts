/**
 * What binds a resume file to one copy: facts about source, target and plan, each with the name that a message
 * gives it. None of them changes when a machine starts anew, as the number of a device may.
 *
 * They cover every file below a device: of what is only read nothing may change, neither which file it is nor its size
 * nor its modification time. What the copy itself writes must be the same file; its size and time change by that.
 */
import fs from 'node:fs';
import {
  type BlockDevice,
  type DeviceDescription,
  imageOf,
  lastingNameOf,
  partsOf,
  plainFile,
  unfiltered,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { fileError } from '../../files/index.js';
import { isLeaf, type Leaf, leavesOf, nameOfLeaf } from './layers.js';

export type Binding = Readonly<Record<string, string>>;

/**
 * The facts of the source, which must not change until the copy is complete; but for the files of `target`, which may
 * be below the source, and are written.
 */
export function sourceBinding(source: BlockDevice, target: DeviceDescription | undefined): Binding {
  return deviceBinding('source', source, new Set(writtenFiles(target)));
}

/** The facts of a target that is written in place. */
export function targetBinding(target: BlockDevice): Binding {
  return deviceBinding('target', target, new Set(writtenFiles(target.description)));
}

/**
 * Refuses to go on with another copy.
 *
 * @throws LacunaError ERR_RESUME_MISMATCH with the first fact that differs
 */
export function checkBinding(path: string, saved: Binding, now: Binding): void {
  for (const [fact, value] of Object.entries(now)) {
    if (saved[fact] === value) continue;
    const was = saved[fact] === undefined ? 'was not noted' : `was ${saved[fact]}`;
    throw mismatch(path, `the ${fact} ${was} when the copy began, and is ${value} now`);
  }
}

export function mismatch(path: string, what: string): LacunaError {
  const message = `Cannot resume from ${path}: ${what}; name what the copy began with, or delete ${path} to begin again`;
  return new LacunaError('ERR_RESUME_MISMATCH', message, { device: path });
}

function deviceBinding(
  side: 'source' | 'target',
  device: BlockDevice,
  written: ReadonlySet<string>,
): Binding {
  const { name, size, description } = device;
  const leaves = leavesOf(description).map(({ leaf }) => leaf);
  const facts: Record<string, string> = {
    [side]: leaves.length === 0 ? name : lastingPlaceOf(leaves[0]),
    [`${side}'s size`]: `${size}`,
    [`${side}'s chain`]: layersOf(description),
  };
  for (const [index, leaf] of leaves.entries()) {
    const file = plainFile(leaf);
    if (file === undefined) continue;
    const owner = index === 0 ? `${side}'s ` : '';
    const suffix = index === 0 ? '' : ` of ${lastingPlaceOf(leaf)}`;
    for (const [fact, value] of Object.entries(fileBinding(file.filename, written))) {
      facts[`${owner}${fact}${suffix}`] = value;
    }
  }
  return { ...facts, ...headerBinding(side, device) };
}

/** Which file it is, and how it is, unless it is written. */
function fileBinding(filename: string, written: ReadonlySet<string>): Record<string, string> {
  const { ino, size, mtimeNs, rdev, ...stat } = statOf(filename);
  // Block devices have new inodes, and may have other numbers, with every start of the machine.
  if (stat.isBlock) return { disk: lastingNameOf(Number(rdev)) };
  const which = { inode: `${ino}` };
  if (written.has(stat.id)) return which;
  return { ...which, 'file size': `${size}`, 'modification time': timeText(mtimeNs) };
}

/** As people read it, exact to the nanosecond. */
function timeText(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  if (ns < 0n || Number.isNaN(date.getTime())) return `${ns} ns`;
  return `${date.toISOString().slice(0, -'.000Z'.length)}.${`${ns % 1_000_000_000n}`.padStart(9, '0')}Z`;
}

/** What an image says of itself that no writing to its disk changes. */
function headerBinding(side: string, { details }: BlockDevice): Record<string, string> {
  if (details === undefined) return {};
  const snapshots = details.snapshots.map(({ id, name, date }) => `${id} (${name}) of ${date}`);
  const facts = {
    'format version': details.version,
    'cluster size': details.clusterSize,
    'refcount width': details.refcountBits,
    'compression type': details.compression,
    'backing file name': details.backingFile ?? 'none',
    'data file name': details.dataFile ?? 'none',
    'list of snapshots': snapshots.join(', ') || 'none',
    'size of what is below': details.chain.map(({ size }) => size).join(', ') || 'none',
  };
  return Object.fromEntries(
    Object.entries(facts).map(([fact, value]) => [`${side}'s ${fact}`, `${value}`]),
  );
}

/** How the layers of a disk lie over each other, and what is shown of them. */
function layersOf(description: DeviceDescription | undefined): string {
  if (description === undefined) return 'not known';
  // A filter changes how requests go, not what the disk is.
  const own = unfiltered(description);
  if (isLeaf(own)) return `raw in ${lastingPlaceOf(own)}`;
  const image = imageOf(own);
  if (image === undefined) return layersOfPart(own);
  const { driver, file, snapshot, backing, 'data-file': dataFile } = image;
  const parts = [`${driver} (${layersOf(file)})`];
  if (snapshot !== undefined) parts.push(`with snapshot "${snapshot}"`);
  if (dataFile !== undefined) parts.push(`with data (${layersOf(dataFile)})`);
  if (backing) parts.push(`over ${layersOf(backing)}`);
  return parts.join(' ');
}

/** What is neither an image nor has its own place: a part of something, or nothing that could be told apart. */
function layersOfPart(own: DeviceDescription): string {
  const part = partsOf(own).find(({ role }) => role === 'part');
  if (part === undefined) return own.driver;
  const { offset = 0, size } = own as { offset?: number; size?: number };
  return `${size} bytes from ${offset} on of ${layersOf(part.description)}`;
}

function lastingPlaceOf(leaf: Leaf): string {
  const file = plainFile(leaf);
  return file ? look(file.filename, (path) => fs.realpathSync(path)) : nameOfLeaf(leaf);
}

/** The files that a copy to a target changes; none where it is not there yet. */
function writtenFiles(target: DeviceDescription | undefined): string[] {
  const own = leavesOf(target).filter(({ layer }) => layer === 0);
  return own.flatMap(({ leaf }) => {
    const file = plainFile(leaf);
    return file && fs.existsSync(file.filename) ? [statOf(file.filename).id] : [];
  });
}

function statOf(filename: string) {
  const stat = look(filename, (path) => fs.statSync(path, { bigint: true }));
  const { ino, size, mtimeNs, rdev, dev } = stat;
  const isBlock = stat.isBlockDevice();
  return { ino, size, mtimeNs, rdev, isBlock, id: isBlock ? `${rdev}` : `${dev}:${ino}` };
}

/** The name of a file that is open may be gone, or lead nowhere. */
function look<T>(filename: string, how: (path: string) => T): T {
  try {
    return how(filename);
  } catch (error) {
    throw fileError('ERR_DEVICE_OPEN', { action: 'look at', device: filename }, error as Error);
  }
}
