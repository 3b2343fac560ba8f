/**
 * The folder of a session: its journal, its scratch images, and the socket of its NBD server. Only its owner may enter.
 *
 *     FOLDER/lacuna-1a2b3c4d/lock            locked while the session lives
 *                            journal.json
 *                            0.qcow2, 1.qcow2 ...
 *                            nbd.sock
 *                            out.sock             where QEMU writes to: a mirror its replica, a push its disks
 *                            0.raw, 1.raw ...     what QEMU pushes
 *                            qemu/                images and nbd.sock, where QEMU runs as another user
 */
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import { lockFile, syncFolder } from '../../files/index.js';
import { describeRefusal } from '../../util/index.js';
import { readJournal } from './journal.js';

const NAME = /^lacuna-[0-9a-f]{8}$/;
const PAUSE_MS = 20;
const MOST_ATTEMPTS = 100;
const LONGEST_SOCKET_PATH = 107;
const { O_RDWR, O_CREAT, O_NOFOLLOW } = fs.constants;

export class SessionFolder {
  readonly path: string;
  readonly #lock: number;

  /**
   * Makes the folder of a new session.
   *
   * @throws RangeError where a socket in it would have too long a path; LacunaError ERR_DEVICE_OPEN
   */
  static async create(base: string, prefix: string): Promise<SessionFolder> {
    const path = resolve(base, prefix);
    checkSocketPath(join(path, 'nbd.sock'));
    for (let attempt = 1; ; attempt++) {
      const mayExist = attempt > 1 && attempt < MOST_ATTEMPTS;
      makeFolder(path, mayExist);
      const lock = takeLock(path, O_CREAT);
      if (typeof lock === 'number') {
        await syncFolder(path);
        return new SessionFolder(path, lock);
      }
      // Somebody who recovers has found it before it was locked, and removes it.
      await sleep(PAUSE_MS);
    }
  }

  /** The folders of sessions that are not alive, each locked; undefined in the place of one that is. */
  static left(base: string): { prefix: string; folder: SessionFolder | undefined }[] {
    return sessionsIn(base).flatMap((prefix) => {
      const path = resolve(base, prefix);
      const lock = takeLock(path, 0);
      if (lock === 'gone') {
        removeEmpty(path);
        return [];
      }
      const folder = lock === 'held' ? undefined : new SessionFolder(path, lock);
      return [{ prefix, folder }];
    });
  }

  private constructor(path: string, lock: number) {
    this.path = path;
    this.#lock = lock;
  }

  get socket(): string {
    return join(this.path, 'nbd.sock');
  }

  /** Where QEMU writes to. */
  get outSocket(): string {
    return join(this.path, 'out.sock');
  }

  /** Where a disk lands that QEMU pushes. */
  landing(disk: number): string {
    return join(this.path, `${disk}.raw`);
  }

  scratch(disk: number): string {
    return join(this.path, `${disk}.qcow2`);
  }

  /**
   * Makes a folder in it for scratch images and the socket where QEMU runs as another user: only that user may enter it.
   * Others may pass this folder on the way there, and see nothing in it.
   *
   * @throws RangeError where a socket in it would have too long a path; LacunaError ERR_DEVICE_OPEN where this user may not give
   *   it away.
   */
  share({ uid, gid }: { readonly uid: number; readonly gid: number }): string {
    const path = join(this.path, 'qemu');
    checkSocketPath(join(path, 'nbd.sock'));
    fs.chmodSync(this.path, 0o711);
    fs.mkdirSync(path, { mode: 0o700 });
    try {
      fs.chownSync(path, uid, gid);
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException;
      const what = `QEMU runs as the user ${uid}, and its scratch images cannot be given to it (${code}): run as root`;
      throw new LacunaError('ERR_DEVICE_OPEN', what, { device: path, errno: code, cause: error });
    }
    return path;
  }

  /** Removes the folder with what is in it. */
  remove(): void {
    // The journal last: until then another process can go on where this one dies.
    for (const name of fs.readdirSync(this.path)) {
      if (name !== 'journal.json' && name !== 'lock')
        fs.rmSync(join(this.path, name), { recursive: true });
    }
    fs.rmSync(join(this.path, 'journal.json'), { force: true });
    fs.rmSync(join(this.path, 'lock'), { force: true });
    fs.rmdirSync(this.path);
    this.leave();
  }

  /** Unlocks it, and leaves it for `recover` to clean up. */
  leave(): void {
    fs.closeSync(this.#lock);
  }
}

/**
 * The generations that the sessions in a folder add or begin from, of all that have not ended yet.
 *
 * @throws LacunaError ERR_MACHINE_LEFTOVERS where a journal cannot be read; ERR_DEVICE_OPEN
 */
export function generationsInUse(base: string): ReadonlySet<string> {
  const journals = sessionsIn(base).map((prefix) => readJournal(resolve(base, prefix)));
  const used = journals.flatMap((journal) => [journal?.generation, journal?.base]);
  return new Set(used.filter((one) => one !== undefined));
}

function makeFolder(path: string, mayExist: boolean): void {
  try {
    fs.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && mayExist) return;
    const what = describeRefusal(`Cannot make the folder ${path}`, code, { making: true });
    throw new LacunaError('ERR_DEVICE_OPEN', what, { device: path, errno: code, cause: error });
  }
}

/** Locks a folder; `held` where somebody else has it, `gone` where it has no lock, as before it was made or when it is removed. */
function takeLock(path: string, create: number): number | 'held' | 'gone' {
  let lock: number;
  try {
    lock = fs.openSync(join(path, 'lock'), O_RDWR | create | (O_NOFOLLOW ?? 0), 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'gone';
    throw error;
  }
  const isLocked = lockFile(lock);
  if (isLocked && fs.fstatSync(lock).nlink > 0) return lock;
  fs.closeSync(lock);
  return isLocked ? 'gone' : 'held';
}

/** What somebody has made or removed, and died in between. */
function removeEmpty(path: string): void {
  try {
    fs.rmdirSync(path);
  } catch {
    // Somebody was faster, or is at it.
  }
}

/** Folders of this user alone: nobody else can have put a journal into them. */
function sessionsIn(base: string): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(base);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    const what = describeRefusal(`Cannot read the folder ${base}`, code);
    throw new LacunaError('ERR_DEVICE_OPEN', what, { device: base, errno: code, cause: error });
  }
  return names.filter((name) => {
    if (!NAME.test(name)) return false;
    const stat = fs.lstatSync(join(base, name), { throwIfNoEntry: false });
    return stat?.isDirectory() === true && stat.uid === process.getuid?.();
  });
}

function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= LONGEST_SOCKET_PATH) return;
  throw new RangeError(
    `the socket ${path} would have a path of ${bytes} bytes, and ${LONGEST_SOCKET_PATH} are the most: choose a folder with a shorter path`,
  );
}
