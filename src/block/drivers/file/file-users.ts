import { readdir, readFile, stat } from 'node:fs/promises';

/** A lock on one byte of a file that others have opened too. */
export interface ContraryLock {
  readonly dev: number;
  readonly ino: number;
  readonly byte: number;
  /** The opening that asks, in this process; its own locks are in nobody's way. */
  readonly fd: number;
}

export const THIS_PROCESS = 'this process';

/** More names than this help nobody. */
const MOST_USERS = 3;

/**
 * Who holds a lock, for an error message, such as `qemu-system-x86 (process 4711)`. The system's list of locks does
 * not name the process of a lock that belongs to an opening, so the openings of all processes are looked at, as far as
 * this user may; undefined where nobody was found.
 */
export async function describeUsers(lock: ContraryLock): Promise<string | undefined> {
  const names: string[] = [];
  for (const id of await entries('/proc')) {
    if (!/^\d+$/.test(id) || !(await holds(id, lock))) continue;
    names.push(await nameOf(id));
    if (names.length === MOST_USERS) break;
  }
  return names.length === 0 ? undefined : names.join(', ');
}

async function holds(id: string, { dev, ino, byte, fd: own }: ContraryLock): Promise<boolean> {
  for (const fd of await entries(`/proc/${id}/fd`)) {
    if (id === String(process.pid) && fd === String(own)) continue;
    const opened = await stat(`/proc/${id}/fd/${fd}`).catch(() => undefined);
    if (opened?.dev !== dev || opened.ino !== ino) continue;
    const info = await text(`/proc/${id}/fdinfo/${fd}`);
    // lock:	1: OFDLCK ADVISORY READ -1 08:01:2196843 100 101
    for (const [, first, last] of info.matchAll(/^lock:.*\bOFDLCK\b.* (\d+) (\d+)$/gm)) {
      if (Number(first) <= byte && byte <= Number(last)) return true;
    }
  }
  return false;
}

async function nameOf(id: string): Promise<string> {
  if (id === String(process.pid)) return THIS_PROCESS;
  const name = (await text(`/proc/${id}/comm`)).trim();
  return `${name} (process ${id})`;
}

/** Processes end while they are looked at, and those of others may be hidden. */
async function entries(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}

async function text(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
