import { realpathSync, statSync } from 'node:fs';
import { dirname, resolve, sep } from 'node:path';
import { LacunaError } from '../../../../errors/index.js';
import { describeRefusal } from '../../../../util/index.js';
import type { DeviceDescription } from '../../../contract/index.js';

/** A file that an image names. */
export interface Naming {
  /** Path of the image; undefined where it is no file, and a relative name means nothing. */
  readonly image: string | undefined;
  /** How a person would name the image. */
  readonly name: string;
  /** What the file is to the image. */
  readonly what: 'backing file' | 'data file';
  /** The key of a description by which the caller says the file himself. */
  readonly key: 'backing' | 'data-file';
  /** Folders below which it may lie. */
  readonly folders: readonly string[];
}

/** QEMU takes what stands before a colon for a protocol, unless a slash comes first. */
const PROTOCOL = /^[^/]*:/;

/**
 * The path of a file by the name that an image has for it: relative to the image's folder, and only below the folders
 * that the caller allows, wherever symbolic links lead.
 *
 * @throws LacunaError ERR_IMAGE_CHAIN where it must not be followed.
 */
export function resolveNamed(named: string, naming: Naming): string {
  const { image, what, key, folders } = naming;
  if (PROTOCOL.test(named) || named.includes('\0') || named === '') {
    throw refused(
      naming,
      named,
      `is not the name of a file: say it as "${key}" of the description`,
    );
  }
  if (image === undefined) {
    const advice = `say it as "${key}" of the description`;
    throw refused(naming, named, `belongs to an image that is not in a file: ${advice}`);
  }
  const path = pathOfNamed(named, image);
  const real = reach(path, (errno) => {
    if (errno === 'ENOENT')
      return refused(
        naming,
        named,
        `is not there (${path}): bring it back, or say another ${what}`,
      );
    return refused(naming, named, describeRefusal('cannot be reached', errno), errno);
  });
  if (!folders.some((folder) => isBelow(real, folder))) {
    const where = real === path ? real : `${path}, which is ${real}`;
    const advice = `if you trust the image, allow its folder with "backing-folders" (--backing-folder of the command), or say the file as "${key}"`;
    throw refused(naming, named, `lies outside ${folders.join(', ')} (${where}): ${advice}`);
  }
  return path;
}

/** The path of a file by the plain name that an image has for it, whether it is there or not, and may be followed or not. */
export function pathOfNamed(named: string, image: string): string {
  const path = resolve(image);
  return resolve(folderOf(path, named), named);
}

/** The formats that a backing file may have, and how a file of each is described. */
const FORMATS: Readonly<Record<string, (file: DeviceDescription) => DeviceDescription>> = {
  raw: (file) => file,
  qcow2: (file) => ({ driver: 'qcow2', file }),
};

/** The description of a backing file, by the format that the image says. */
export function describeBacking(
  path: string,
  format: string | undefined,
  naming: Naming,
): DeviceDescription {
  const file = { driver: 'file', filename: path } as const;
  if (format !== undefined && Object.hasOwn(FORMATS, format)) return FORMATS[format](file);
  const advice =
    format === undefined
      ? 'has no format in the image, and none is guessed: say it with "qemu-img rebase -u -F FORMAT -b FILE IMAGE", or say the file as "backing"'
      : `is of the format ${format}, which cannot be read here: say it as "backing", served by qemu-nbd`;
  throw refused(naming, path, advice);
}

/** Something that tells two openings of one file from two files. */
export function identityOf(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
}

/** Folders as `resolveNamed` compares them; one that is not there allows nothing. */
export function realFolders(folders: readonly string[]): string[] {
  return folders.map((folder) => realPath(resolve(folder)) ?? resolve(folder));
}

export function refused(naming: Naming, named: string, why: string, errno?: string): LacunaError {
  const message = `The ${naming.what} "${named}" of ${naming.name} ${why}`;
  const context = { device: naming.name, ...(errno !== undefined && { errno }) };
  return new LacunaError('ERR_IMAGE_CHAIN', message, context);
}

function reach(path: string, refuse: (errno: string) => LacunaError): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw refuse((error as NodeJS.ErrnoException).code ?? String(error));
  }
}

/** From where a name counts. For one with `..` it is the real folder: the system follows symbolic links before it goes up. */
function folderOf(image: string, named: string): string {
  const folder = dirname(image);
  return named.split(sep).includes('..') ? (realPath(folder) ?? folder) : folder;
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}
