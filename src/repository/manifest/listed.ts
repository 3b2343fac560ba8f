/**
 * Which points there must be: a manifest that is gone altogether would be missed by nobody otherwise, unless another point
 * lies over its own. The list is written behind the commit of a backup and ahead of what a prune removes, so that a crash
 * leaves a point out at worst.
 */
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import {
  type MachinePlaces,
  type RepositoryOperations,
  readIfThere,
  replaceFile,
  seal,
  unseal,
} from '../layout/index.js';

/**
 * Notes the points that there must be.
 *
 * @param files the digest of the names of all files of disks, where each of them belongs to a point
 */
export function listPoints(
  places: MachinePlaces,
  numbers: Iterable<number>,
  files: string | undefined,
  operations: RepositoryOperations,
): void {
  const { machine } = places;
  const points = [...new Set(numbers)].sort((a, b) => a - b);
  const list = { machine, points, ...(files !== undefined && { files }) };
  replaceFile(places.listed, seal(list), operations);
}

/** The points that there must be; undefined where the list was changed since it was written. */
export function listedPoints(places: MachinePlaces): readonly number[] | undefined {
  const found = readList(places);
  return found === 'changed' ? undefined : (found?.points ?? []);
}

/** The digest of the names of all files of disks, when each of them belonged to a point; undefined where it is not known. */
export function listedFiles(places: MachinePlaces): string | undefined {
  const found = readList(places);
  return found === 'changed' || typeof found?.files !== 'string' ? undefined : found.files;
}

interface List {
  readonly points: readonly number[];
  readonly files?: unknown;
}

/** Undefined where there is none. */
function readList(places: MachinePlaces): List | 'changed' | undefined {
  const bytes = readIfThere(places.listed);
  if (bytes === undefined) return undefined;
  const { machine, points, files } = unseal(bytes) ?? {};
  if (machine !== places.machine || !Array.isArray(points)) return 'changed';
  return points.every(Number.isSafeInteger) ? { points, files } : 'changed';
}

/**
 * The points that must be there, and have no manifest.
 *
 * @param there those that have one, as they were found before
 */
export function missingPoints(places: MachinePlaces, there: ReadonlySet<number>): LacunaError[] {
  const gone = (listedPoints(places) ?? [])
    .filter((number) => !there.has(number))
    .filter((number) => !fs.existsSync(places.manifest(number)));
  if (gone.length === 0) return [];
  // Not everybody who reads has a lock: a prune may have taken them out of the list, and removed them, since it was read.
  const listed = new Set(listedPoints(places));
  return gone
    .filter((number) => listed.has(number))
    .map((number) => {
      const device = places.manifest(number);
      const message = `${device}: the manifest of point ${number} of ${places.machine} is not there, and no prune has removed it: bring it back from a copy of the repository, or remove ${places.listed} to do without the point`;
      return new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device });
    });
}
