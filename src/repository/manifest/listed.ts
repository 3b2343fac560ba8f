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

/** Notes the points that there must be. */
export function listPoints(
  places: MachinePlaces,
  numbers: Iterable<number>,
  operations: RepositoryOperations,
): void {
  const { machine } = places;
  const points = [...new Set(numbers)].sort((a, b) => a - b);
  replaceFile(places.listed, seal({ machine, points }), operations);
}

/** The points that there must be; undefined where the list was changed since it was written. */
export function listedPoints(places: MachinePlaces): readonly number[] | undefined {
  const bytes = readIfThere(places.listed);
  if (bytes === undefined) return [];
  const found = unseal(bytes);
  const { machine, points } = found ?? {};
  if (machine !== places.machine || !Array.isArray(points)) return undefined;
  return points.every(Number.isSafeInteger) ? points : undefined;
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
