import { lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { refusal } from './refusal.js';

/** The folders below which files may lie that clients name. */
export class AllowedFiles {
  readonly #folders: readonly string[] | undefined;

  /**
   * @param folders undefined for no limit.
   * @throws what the file system says where a folder is not there.
   */
  constructor(folders: readonly string[] | undefined) {
    this.#folders = folders?.map((folder) => realpathSync(folder));
  }

  /**
   * Symbolic links are followed: what counts is where the file really lies.
   *
   * @returns the path without links in its folders, for the same file may not be found by the given one a moment later.
   * @throws QmpCommandError where a file lies elsewhere.
   */
  check(path: string): string {
    const folders = this.#folders;
    if (folders === undefined) return path;
    const real = realPathOf(resolve(path));
    const isBelow = folders.some((folder) => real.startsWith(folder === sep ? sep : folder + sep));
    if (isBelow) return real;
    throw refusal(`'${path}' lies in no folder that clients may use: ${folders.join(', ')}`);
  }
}

/** Where a path really leads; of what is not there yet, its folder counts. A link may lead to what is not there yet, too. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const folder = dirname(path);
    if (code !== 'ENOENT' || folder === path) throw refusal((error as Error).message);
    const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
    if (isLink) return realPathOf(resolve(realpathSync(folder), readlinkSync(path)));
    return join(realPathOf(folder), basename(path));
  }
}
