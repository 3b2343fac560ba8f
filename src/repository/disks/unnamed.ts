/** Files of a machine that belong to no point: what a run that died has left, or what a point that is gone had. */
import { join } from 'node:path';
import { purposeOf, sweep } from '../../files/index.js';
import {
  type MachinePlaces,
  namesIn,
  numberOf,
  type RepositoryOperations,
  removeFiles,
} from '../layout/index.js';
import type { MachinePoints } from './points.js';

const MAKING = '.partial-';
/** Images and leaves as they are called here. Nothing else is ours to remove. */
const OURS = /^\d+-[0-9a-f]{8}(-[0-9a-f]{8})?\.(qcow2|leaves)(\.new)?$/;
/** What an image is called that is going to replace another one. */
export const NEW = '.new';

/**
 * Removes what no manifest names. With a manifest that cannot be read nothing is removed, since nobody knows what it names.
 * The caller holds a lock that keeps others from adding to the machine.
 *
 * @returns the files that were removed.
 */
export function removeUnnamed(points: MachinePoints, operations: RepositoryOperations): string[] {
  if (points.problems.length > 0) return [];
  const { places } = points;
  const found = [...unnamedFiles(points), ...unfinishedManifests(points)];
  removeFiles(found, operations);
  for (const name of namesIn(places.locks)) {
    const [made, rest] = name.split(MAKING);
    // Who is about to take a lock makes such a file as well.
    if (rest !== undefined) sweep(join(places.locks, made));
  }
  sweep(places.verified);
  sweep(places.listed);
  return found;
}

function unfinishedManifests({ places }: MachinePoints): string[] {
  return namesIn(places.points)
    .filter((name) => numberOf(name.split(MAKING)[0]) !== undefined)
    .map((name) => join(places.points, name))
    .filter(isUnfinished);
}

/** Files of disks that no manifest names. */
export function unnamedFiles({ places, points }: MachinePoints): string[] {
  const named = new Set<string>();
  for (const { disks } of points) {
    for (const { name, file, replacement } of disks) {
      for (const image of [file, ...(file.below ?? []), ...(replacement?.below ?? [])]) {
        named.add(places.file(name, image.name)).add(places.file(name, image.leaves.name));
      }
      if (replacement === undefined) continue;
      named.add(places.file(name, file.name + NEW));
      named.add(places.file(name, replacement.leaves.name));
    }
  }
  return namesIn(places.disks)
    .flatMap((disk) => filesOf(places, disk))
    .filter((path) => !named.has(path));
}

/** The files of a disk that were made here. */
function filesOf(places: MachinePlaces, disk: string): string[] {
  return namesIn(places.disk(disk))
    .filter((name) => OURS.test(name.split(MAKING)[0]))
    .map((name) => places.file(disk, name))
    .filter((path) => !path.includes(MAKING) || isUnfinished(path));
}

/** Whether a file was being made here for the name that it begins with. */
function isUnfinished(path: string): boolean {
  const at = path.lastIndexOf(MAKING);
  return at !== -1 && purposeOf(path, path.slice(0, at)) !== undefined;
}
