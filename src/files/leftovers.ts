/** What processes that died have left of files that they were making. */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { type Purpose, purposeOf } from './made-name.js';
import { followed, isSameFile } from './places.js';
import { fileCalls } from './system-calls.js';

/** An unfinished file, which was made for a name by a process that is gone. */
export interface Leftover {
  /** Where it is. */
  readonly path: string;
  /** `resumable` where a resume file may say how to go on with it. */
  readonly purpose: Purpose;
  /** Bytes that it takes on the disk. */
  readonly bytes: number;
  /** Whether its maker lives, or any process has it open; true also where that cannot be found out. */
  readonly isInUse: boolean;
}

/**
 * Files of this user that were begun for a name and have not got it, by their own names.
 */
export function leftoversOf(filename: string, purposes: readonly Purpose[]): Leftover[] {
  const name = placed(filename);
  if (name === undefined) return [];
  const found: Leftover[] = [];
  for (const entry of entriesOf(dirname(name))) {
    const path = join(dirname(name), entry);
    const purpose = purposeOf(path, name);
    if (purpose === undefined || !purposes.includes(purpose)) continue;
    const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (!stat?.isFile() || !isOfThisUser(stat)) continue;
    const bytes = Number(stat.blocks) * 512;
    found.push({ path, purpose, bytes, isInUse: isInUse(path, stat) });
  }
  return found;
}

/**
 * Removes one that {@link leftoversOf} has found, unless it is in use by now.
 *
 * @returns whether it is gone.
 * @throws what the system says.
 */
export function removeLeftover({ path }: Pick<Leftover, 'path'>): boolean {
  const stat = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return true;
  if (!stat.isFile() || !isOfThisUser(stat) || isInUse(path, stat)) return false;
  fs.unlinkSync(path);
  return true;
}

/** Removes what was left of small files that are made anew each time. Never fails: it is in nobody's way. */
export function sweep(filename: string): void {
  try {
    for (const leftover of leftoversOf(filename, ['side'])) removeLeftover(leftover);
  } catch {
    // The next one tries again.
  }
}

function placed(filename: string): string | undefined {
  try {
    return followed(filename);
  } catch {
    return undefined;
  }
}

function entriesOf(folder: string): string[] {
  try {
    return fs.readdirSync(folder).filter((name) => name.includes('.partial-'));
  } catch {
    return [];
  }
}

function isOfThisUser({ uid }: fs.BigIntStats): boolean {
  const own = process.getuid?.();
  return own === undefined || own === 0 || own === Number(uid);
}

function isInUse(path: string, stat: fs.BigIntStats): boolean {
  const calls = fileCalls();
  if (calls === undefined) return isOpenSomewhere(stat);
  let fd: number;
  try {
    const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
    fd = fs.openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return true;
  }
  try {
    if (!isSameFile(fs.fstatSync(fd, { bigint: true }), stat)) return true;
    const result = calls.lock(fd);
    if (result < 0) return true;
  } finally {
    fs.closeSync(fd);
  }
  return isOpenSomewhere(stat);
}

/** Whether a process has the file open, as far as this user may look. */
function isOpenSomewhere(stat: fs.BigIntStats): boolean {
  let processes: string[];
  try {
    processes = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return true;
  }
  return processes.some((id) => holds(`/proc/${id}/fd`, stat));
}

function holds(folder: string, stat: fs.BigIntStats): boolean {
  let descriptors: string[];
  try {
    descriptors = fs.readdirSync(folder);
  } catch {
    // It has ended, or is another user's.
    return false;
  }
  return descriptors.some((fd) => {
    try {
      return isSameFile(fs.statSync(join(folder, fd), { bigint: true }), stat);
    } catch {
      return false;
    }
  });
}
