import { statSync } from 'node:fs';
import type { Bitmap } from '../../bitmap/index.js';
import { LacunaError } from '../../errors/index.js';

/** What `--bitmap` may name. */
export interface BitmapNames {
  /** Bitmaps that the source itself has. */
  readonly ofSource: readonly string[];
  /** Bitmaps that files have, by name. */
  readonly ofFiles: ReadonlyMap<string, string>;
}

/**
 * `NAME` or `NAME=FILE`; the first `=` separates.
 *
 * @param form what people are told to say
 * @throws TypeError where a name is said twice, or there is none.
 */
export function parseBitmaps(texts: readonly string[], form = 'NAME, or NAME=FILE'): BitmapNames {
  const ofSource: string[] = [];
  const ofFiles = new Map<string, string>();
  const seen = new Set<string>();
  for (const text of texts) {
    const [name, ...rest] = text.split('=');
    const file = rest.join('=');
    if (name === '' || (rest.length > 0 && file === '')) {
      throw new TypeError(`--bitmap ${text}: say ${form}`);
    }
    if (seen.has(name)) throw new TypeError(`--bitmap ${text}: there is one "${name}" already`);
    seen.add(name);
    if (rest.length === 0) ofSource.push(name);
    else ofFiles.set(name, file);
  }
  return { ofSource, ofFiles };
}

/**
 * Reads bitmaps from the files that keep them; `size` is the disk's, where that is known.
 *
 * @throws LacunaError what `BitmapFile.open` and `load` throw, ERR_BITMAP_UNKNOWN also where there is no file,
 * ERR_BITMAP_INCONSISTENT where writes are missing.
 */
export async function loadBitmaps(
  ofFiles: ReadonlyMap<string, string>,
  size?: number,
): Promise<Record<string, Bitmap>> {
  if (ofFiles.size === 0) return {};
  // Only now: a server without bitmaps does not need the arena.
  const { BitmapFile } = await import('../../bitmap/index.js');
  // No name is special here, not even __proto__.
  const loaded: Record<string, Bitmap> = Object.create(null);
  for (const [name, path] of ofFiles) {
    // A file that is not there would be one without bitmaps, to be made when some are stored.
    if (isMissing(path)) throw missing(name, `there is no file ${path}`);
    const file = BitmapFile.open(path, { size, readOnly: true });
    try {
      const stored = file.bitmaps.find((each) => each.name === name);
      if (stored === undefined) throw missing(name, `${path} has ${listOf(file.bitmaps)}`);
      if (stored.inconsistent) throw inconsistent(name, path);
      loaded[name] = await stored.load();
    } finally {
      file.close();
    }
  }
  return loaded;
}

/** Whatever else is wrong with the path, opening it tells. */
function isMissing(path: string): boolean {
  try {
    statSync(path);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function listOf(bitmaps: readonly { readonly name: string }[]): string {
  if (bitmaps.length === 0) return 'none';
  return bitmaps.map(({ name }) => `'${name}'`).join(', ');
}

function missing(name: string, why: string): LacunaError {
  return new LacunaError('ERR_BITMAP_UNKNOWN', `no bitmap '${name}': ${why}`);
}

export function inconsistent(name: string, path: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_INCONSISTENT',
    `bitmap '${name}' in ${path} lacks writes, for its file was not closed: make a full copy`,
    { device: path },
  );
}
