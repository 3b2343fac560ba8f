/** Whether a manifest has what every reader of many uses: much less than its schema says, and quick. */
import { isName } from '../layout/index.js';
import { FILENAME_PATTERN } from './schema.js';

const FILENAME = new RegExp(FILENAME_PATTERN);

/** Why a list of points could not be made with a manifest; undefined where it can. */
export function shapeFault(found: Record<string, unknown>): string | undefined {
  const { time, tags, id, durationMs, disks } = found;
  if (typeof time !== 'string' || Number.isNaN(Date.parse(time))) return 'it has no time';
  if (typeof id !== 'string' || !isSize(durationMs)) return 'it has no id or no duration';
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === 'string'))
    return 'it has no tags';
  if (!Array.isArray(disks) || !disks.every(isDisk)) return 'it has no list of disks';
  const names = new Set(disks.map(({ name }) => name));
  return names.size < disks.length ? 'two of its disks have one name' : undefined;
}

function isDisk(disk: unknown): boolean {
  if (!isObject(disk) || !isName(disk.name)) return false;
  const { size, movedBytes, file, replacement } = disk;
  const isReplaced = replacement !== undefined;
  return (
    isSize(size) && isSize(movedBytes) && isImage(file) && (!isReplaced || isImage(replacement))
  );
}

function isImage(image: unknown): boolean {
  if (!isFile(image)) return false;
  const { parent, below = [] } = image;
  if (parent !== null && !isSize(parent)) return false;
  return Array.isArray(below) && below.every((one) => isFile(one) && isSize(one.number));
}

function isFile(image: unknown): image is Record<string, unknown> {
  if (!isObject(image) || !isFilename(image.name) || !isSize(image.size)) return false;
  const { leaves } = image;
  return isObject(leaves) && isFilename(leaves.name) && isSize(leaves.size);
}

/** Nothing that leads out of the folder of the disk. */
function isFilename(name: unknown): boolean {
  return typeof name === 'string' && FILENAME.test(name);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER;
}
