/** Files of a machine that belong to no point: what a run that died has left, or what a point that is gone had. */
import { basename, join } from 'node:path';
import { purposeOf, sweep } from '../../files/index.js';
import {
  foldersIn,
  isName,
  type MachinePlaces,
  namesIn,
  numberOf,
  type RepositoryOperations,
  removeFiles,
  sha256,
} from '../layout/index.js';
import { listedFiles, type Manifest } from '../manifest/index.js';
import type { MachinePoints } from './points.js';

const MAKING = '.partial-';
/** Images and leaves as they are called here. Nothing else is ours to remove. */
const OURS = /^\d+-[0-9a-f]{8}(-[0-9a-f]{8})?\.(qcow2|leaves)(\.new)?$/;
/** What an image is called that is going to replace another one. */
export const NEW = '.new';

/** Names of files by the disk that they are of. */
export type DiskFiles = ReadonlyMap<string, readonly string[]>;

/**
 * Removes what no manifest names. With a manifest that cannot be read nothing is removed, since nobody knows what it names.
 * The caller holds a lock that keeps others from adding to the machine.
 *
 * @param mark what the names of files have behind their number that stay all the same, and may be unfinished
 * @returns the files that were removed.
 */
export function removeUnnamed(
  points: MachinePoints,
  operations: RepositoryOperations,
  mark?: string,
): string[] {
  if (points.problems.length > 0) return [];
  const isMarked = (path: string) =>
    mark !== undefined && basename(path).split('.')[0].endsWith(mark);
  const found = [
    ...unnamedFiles(points).filter((path) => !isMarked(path)),
    ...unfinishedManifests(points.places),
  ];
  removeFiles(found, operations);
  sweepUnfinished(points.places);
  return found;
}

/** Removes the unfinished files of a run that died; no manifest ever names one. */
function sweepUnfinished(places: MachinePlaces): void {
  for (const name of namesIn(places.locks)) {
    const [made, rest] = name.split(MAKING);
    // Who is about to take a lock makes such a file as well.
    if (rest !== undefined) sweep(join(places.locks, made));
  }
  sweep(places.verified);
  sweep(places.listed);
}

/**
 * The files of all disks, if there is nothing that {@link removeUnnamed} would remove: each belonged to a point when they were
 * noted last, and they are the same. Undefined where that is not known. No manifest is read for it.
 */
export function filesIfNamed(places: MachinePlaces): DiskFiles | undefined {
  const noted = listedFiles(places);
  if (noted === undefined) return undefined;
  const files = filesOf(places);
  if (digestOfFiles(files) !== noted || unfinishedManifests(places).length > 0) return undefined;
  sweepUnfinished(places);
  return files;
}

/** One digest of the names of files, whatever their order. */
export function digestOfFiles(files: DiskFiles): string {
  const disks = [...files].filter(([, names]) => names.length > 0);
  const lines = disks.map(([disk, names]) => [disk, ...[...new Set(names)].sort()].join('\n'));
  return sha256(Buffer.from(lines.sort().join('\n\n')));
}

/** The names of all files that points have. */
export function namedFiles(points: readonly Manifest[]): Map<string, string[]> {
  const files = new Map<string, string[]>();
  for (const { disks } of points) {
    for (const { name, file, replacement } of disks) {
      const names = files.get(name) ?? [];
      files.set(name, names);
      for (const image of [file, ...(file.below ?? []), ...(replacement?.below ?? [])]) {
        names.push(image.name, image.leaves.name);
      }
      if (replacement !== undefined) names.push(file.name + NEW, replacement.leaves.name);
    }
  }
  return files;
}

function unfinishedManifests(places: MachinePlaces): string[] {
  return namesIn(places.points)
    .filter((name) => name.includes(MAKING) && numberOf(name.split(MAKING)[0]) !== undefined)
    .map((name) => join(places.points, name))
    .filter(isUnfinished);
}

/** Files of disks that no manifest names. */
export function unnamedFiles({ places, points }: MachinePoints): string[] {
  const named = namedFiles(points);
  return [...filesOf(places)].flatMap(([disk, names]) => {
    const own = new Set(named.get(disk));
    return names.filter((name) => !own.has(name)).map((name) => places.file(disk, name));
  });
}

/** The disks that have files. */
export function disksIn(places: MachinePlaces): string[] {
  return foldersIn(places.disks).filter(isName);
}

/** The files of disks that were made here. */
function filesOf(places: MachinePlaces): DiskFiles {
  return new Map(
    disksIn(places).map((disk) => [
      disk,
      namesIn(places.disk(disk)).filter((name) => {
        if (!name.includes(MAKING)) return OURS.test(name);
        return OURS.test(name.split(MAKING)[0]) && isUnfinished(places.file(disk, name));
      }),
    ]),
  );
}

/** Whether a file was being made here for the name that it begins with. */
function isUnfinished(path: string): boolean {
  const at = path.lastIndexOf(MAKING);
  return at !== -1 && purposeOf(path, path.slice(0, at)) !== undefined;
}
