/** Reads the newest manifest and those below it: what an increment begins from, however many other points there are. */
import type { MachinePlaces } from '../layout/index.js';
import { listedPoints } from './listed.js';
import type { Manifest } from './manifest.js';
import { isDamage, type Manifests, numbersIn, readManifest } from './read.js';

/**
 * The newest point with all those that its disks lie over. Undefined where these cannot be told without a look at all points:
 * one is damaged or missing, there are others than must be there, or a prune has begun something and not ended it.
 */
export function readNewestChain(places: MachinePlaces, repository: string): Manifests | undefined {
  const numbers = new Set(numbersIn(places));
  const listed = listedPoints(places);
  const isAsListed =
    listed?.length === numbers.size && listed.every((number) => numbers.has(number));
  if (!isAsListed || numbers.size === 0) return undefined;
  const points: Manifest[] = [];
  const wanted = new Set([Math.max(...numbers)]);
  for (const number of wanted) {
    const manifest = readSound(places, number, repository);
    if (manifest === undefined || isUnsettled(manifest, numbers)) return undefined;
    points.push(manifest);
    for (const { file } of manifest.disks) if (file.parent !== null) wanted.add(file.parent);
  }
  points.sort((a, b) => a.number - b.number);
  return { points, problems: [] };
}

function readSound(
  places: MachinePlaces,
  number: number,
  repository: string,
): Manifest | undefined {
  try {
    return readManifest(places, number, repository);
  } catch (error) {
    if (isDamage(error)) return undefined;
    throw error;
  }
}

/** Whether a prune that died has left something of it to end. */
function isUnsettled({ disks }: Manifest, numbers: ReadonlySet<number>): boolean {
  return disks.some(
    ({ file, replacement }) =>
      replacement !== undefined || file.below?.some(({ number }) => numbers.has(number)) === true,
  );
}
