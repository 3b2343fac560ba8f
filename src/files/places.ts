/** Where a path leads, and whether two of them lead to one file. */
import fs from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { LacunaError } from '../errors/index.js';
import { fileError } from './file-error.js';

/** As many links as the system follows. */
const MOST_LINKS = 40;

/**
 * The whole path behind symbolic links, also where the last of them leads to nothing yet.
 *
 * @throws TypeError for half a character; what the system says, such as ELOOP or EACCES; LacunaError ERR_DEVICE_OPEN where that path is not UTF-8.
 */
export function followed(filename: string): string {
  if (/\p{Surrogate}/u.test(filename)) {
    throw new TypeError(`a path must be made of whole characters, not ${JSON.stringify(filename)}`);
  }
  let path = filename;
  for (let links = 0; links < MOST_LINKS; links++) {
    try {
      return realPath(path, filename);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    if (!fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) {
      return wholePath(path, filename);
    }
    path = resolve(dirname(path), utf8(fs.readlinkSync(path, 'buffer'), filename));
  }
  throw Object.assign(new Error(`too many symbolic links: ${filename}`), { code: 'ELOOP' });
}

/** The path that a file will have when it is made. */
function wholePath(path: string, filename: string): string {
  const folder = dirname(resolve(path));
  try {
    return join(realPath(folder, filename), basename(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return join(folder, basename(path));
  }
}

function realPath(path: string, filename: string): string {
  return utf8(fs.realpathSync.native(path, 'buffer') as unknown as Buffer, filename);
}

/** Node puts another character in the place of what is not UTF-8, and so would find, or make, another file. */
function utf8(bytes: Uint8Array, filename: string): string {
  const text = Buffer.from(bytes).toString('utf8');
  if (Buffer.from(text, 'utf8').equals(bytes)) return text;
  const message = `Cannot follow ${filename}: it leads to a name that is not valid UTF-8; rename that file or folder`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EILSEQ' });
}

/**
 * What a path leads to; undefined where nothing is.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export function statIfThere(path: string): fs.BigIntStats | undefined {
  try {
    return fs.statSync(path, { bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError('ERR_DEVICE_OPEN', { action: 'open', device: path }, error as Error);
  }
}

/** Whether two paths led to one file, or to one block device by whatever node. */
export function isSameFile(a: fs.BigIntStats, b: fs.BigIntStats): boolean {
  if (a.isBlockDevice() && b.isBlockDevice()) return a.rdev === b.rdev;
  return a.dev === b.dev && a.ino === b.ino;
}

/** What tells a file from all others while it exists: `DEVICE:INODE`. */
export function inodeOf({ dev, ino }: fs.BigIntStats): string {
  return `${dev}:${ino}`;
}

/** The same for every name of a file, a socket or a block device while it exists; undefined where nothing can be seen. */
export function identityOf(path: string): string | undefined {
  try {
    const stat = fs.statSync(path, { bigint: true });
    return stat.isBlockDevice() ? `block ${stat.rdev}` : inodeOf(stat);
  } catch {
    return undefined;
  }
}

/**
 * Whether two paths lead to one place: to one file by whatever links, or, where nothing is yet, to one name in one
 * folder.
 *
 * @throws LacunaError ERR_DEVICE_OPEN where one of them cannot be followed.
 */
export function isSamePlace(a: string, b: string): boolean {
  const [first, second] = [statIfThere(a), statIfThere(b)];
  if (first !== undefined && second !== undefined) return isSameFile(first, second);
  if (first !== undefined || second !== undefined) return false;
  const [place, other] = [placeOf(a), placeOf(b)];
  if (basename(place) !== basename(other)) return false;
  const folders = [statIfThere(dirname(place)), statIfThere(dirname(other))];
  if (folders[0] === undefined || folders[1] === undefined) return place === other;
  return isSameFile(folders[0], folders[1]);
}

/** The first of some paths that leads to the same place as another path; undefined where none does. */
export function samePlaceAmong(path: string, others: Iterable<string>): string | undefined {
  for (const other of others) if (isSamePlace(path, other)) return other;
  return undefined;
}

function placeOf(path: string): string {
  try {
    return followed(path);
  } catch (error) {
    if (error instanceof LacunaError) throw error;
    throw fileError('ERR_DEVICE_OPEN', { action: 'open', device: path }, error as Error);
  }
}
