/** Lets V8 keep what it compiles of this command for the next run, where Node can: from 22.8 on. */
import { lstatSync, mkdirSync, type Stats, statSync } from 'node:fs';
import nodeModule from 'node:module';
import { isAbsolute, join } from 'node:path';

/** Newer than the types of Node 20. */
type Enable = (folder: string) => unknown;

/** The bits of a mode that let others than the owner change a folder, and that let them use it at all. */
const OTHERS_WRITE = 0o022;
const OTHERS = 0o077;

/**
 * Has Node keep compiled code in the user's cache folder, and nowhere where others could put code for this user to run.
 * Nothing else than speed depends on it. A folder that the user has given Node for this (`NODE_COMPILE_CACHE`) stays.
 */
export function keepCompiledCode(): void {
  const { enableCompileCache } = nodeModule as { enableCompileCache?: Enable };
  if (enableCompileCache === undefined || process.env.NODE_COMPILE_CACHE) return;
  const folder = ownFolder(process.env);
  if (folder !== undefined) enableCompileCache(folder);
}

/**
 * The folder for compiled code, which is made where there is none; undefined where it, or the one that it is in, is not
 * this user's alone.
 */
function ownFolder({ XDG_CACHE_HOME: said, HOME: home }: NodeJS.ProcessEnv) {
  const cache = said || (home && join(home, '.cache'));
  if (!cache || !isAbsolute(cache)) return undefined;
  const folder = join(cache, 'lacuna');
  try {
    for (const path of [cache, folder]) makeFolder(path);
    const isSafe = isOwn(statSync(cache), OTHERS_WRITE) && isOwn(lstatSync(folder), OTHERS);
    return isSafe ? folder : undefined;
  } catch {
    return undefined;
  }
}

/** Makes a folder for this user alone; not those above it, so that no home is made where there is none. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function isOwn(found: Stats, forbidden: number): boolean {
  return found.isDirectory() && found.uid === process.geteuid?.() && (found.mode & forbidden) === 0;
}
