/**
 * The names of files while they are made: the name that the file is going to have, a part that nobody can foresee, and a
 * check that only names of ours have. So what a process that died has left is known again, by whoever looks for it, on
 * every file system and also after a restart; and nothing else is taken for it.
 */
import { createHash, randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';

/**
 * What a file is made for. `side`: a small file that is replaced. `target`: a disk that is copied to. `resumable`: the
 * same, where a resume file holds what remains.
 */
export type Purpose = 'side' | 'target' | 'resumable';

const PURPOSES: readonly Purpose[] = ['side', 'target', 'resumable'];

/** Bytes of a name on nearly all file systems, and on those that store names encrypted. */
export const NAME_LIMITS: readonly number[] = [255, 143];

const FORM = /^(.*)\.partial-([0-9a-f]{16})([0-9a-f]{8})$/s;
const SUFFIX_BYTES = '.partial-'.length + 24;

/** A path for a file that is being made for `name`, which must be resolved. */
export function madePath(name: string, purpose: Purpose, limit = NAME_LIMITS[0]): string {
  const base = basename(name);
  const random = randomBytes(8).toString('hex');
  const suffix = `.partial-${random}${checkOf(base, purpose, random)}`;
  return join(dirname(name), `${cut(base, limit - SUFFIX_BYTES)}${suffix}`);
}

/** What a file was made for, by its name; undefined where it is not one that was made for `name`. */
export function purposeOf(path: string, name: string): Purpose | undefined {
  const match = FORM.exec(basename(path));
  if (match === null || dirname(path) !== dirname(name)) return undefined;
  const [, start, random, check] = match;
  const base = basename(name);
  if (!base.startsWith(start)) return undefined;
  return PURPOSES.find((purpose) => checkOf(base, purpose, random) === check);
}

function checkOf(base: string, purpose: Purpose, random: string): string {
  const text = ['lacuna', purpose, random, base].join('\0');
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

/** The beginning of a name that fits, without a part of a character at its end. */
function cut(name: string, bytes: number): string {
  if (Buffer.byteLength(name) <= bytes) return name;
  let [text, length] = ['', 0];
  for (const character of name) {
    length += Buffer.byteLength(character);
    if (length > bytes) break;
    text += character;
  }
  return text;
}
