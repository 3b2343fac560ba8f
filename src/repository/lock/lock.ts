/**
 * Locks on the restore points of a machine: a file for each holder. Who wants one writes its own file first and looks
 * at those of others then, so that of two that come at once at least one sees the other.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import {
  attempt,
  createFile,
  type MachinePlaces,
  makeFolder,
  namesIn,
  type RepositoryOperations,
  readIfThere,
  repositoryOperations,
} from '../layout/index.js';
import { type Holder, lifeOf, thisHolder } from './holder.js';

/** `read` goes with everything but `change`, `add` with `read`, `change` with nothing. */
export type LockKind = 'read' | 'add' | 'change';

const REFUSES: Record<LockKind, readonly LockKind[]> = {
  read: ['change'],
  add: ['add', 'change'],
  change: ['read', 'add', 'change'],
};

/** What a lock says. */
export interface LockFile extends Holder {
  /** What it goes with. */
  readonly kind: LockKind;
  /** What it is held for, such as `backup`. */
  readonly purpose: string;
  /** Since when, in ISO 8601. */
  readonly since: string;
}

/** A lock that was found. */
export interface FoundLock {
  /** The file of the lock. */
  readonly path: string;
  /** Undefined where it cannot be read. */
  readonly lock: LockFile | undefined;
  /** Whether its holder lives; `unknown` where that cannot be found out from here. */
  readonly life: 'alive' | 'dead' | 'unknown';
}

/** A lock that is held. */
export class Lock {
  readonly #path: string | undefined;

  /**
   * @throws LacunaError ERR_REPOSITORY_LOCKED, ERR_REPOSITORY_FILE
   */
  static take(
    places: MachinePlaces,
    kind: LockKind,
    purpose: string,
    operations: RepositoryOperations = repositoryOperations,
  ): Lock {
    const path = join(places.locks, `${kind}-${randomBytes(8).toString('hex')}.json`);
    const lock: LockFile = { ...thisHolder(), kind, purpose, since: new Date().toISOString() };
    if (!write(places, path, lock, operations)) return new Lock(undefined);
    const own = new Lock(path);
    try {
      for (const found of locksOf(places)) {
        if (found.path === path) continue;
        // Dead locks go even if they are in nobody's way, or some would stay forever.
        if (found.life === 'dead') removeDead(found);
        else if (refuses(kind, found)) throw lockedBy(places.machine, found);
      }
    } catch (error) {
      own.release();
      throw error;
    }
    return own;
  }

  private constructor(path: string | undefined) {
    this.#path = path;
  }

  /** Never fails: a lock that cannot be removed is known to be dead when this process is gone. */
  release(): void {
    if (this.#path === undefined) return;
    try {
      fs.rmSync(this.#path, { force: true });
    } catch {
      // As above.
    }
  }
}

/** One that cannot be removed is in nobody's way. */
function removeDead({ path }: FoundLock): void {
  try {
    fs.rmSync(path, { force: true });
  } catch {
    // As above.
  }
}

/** Why nothing can be written: on a full disk a restore is wanted more than ever. */
const WITHOUT_LOCK: ReadonlySet<string | undefined> = new Set([
  ...['EROFS', 'EACCES', 'EPERM'],
  ...['ENOSPC', 'EDQUOT'],
]);

/** @returns false where nothing can be written, and so nothing changed from here. */
function write(
  places: MachinePlaces,
  path: string,
  lock: LockFile,
  operations: RepositoryOperations,
): boolean {
  try {
    makeFolder(places.locks, operations);
    // Its bytes are made durable, so that it can be read after a power cut. Its name need not be: it is gone then, or dead.
    const { syncFolder: _, ...rest } = operations;
    const bytes = Buffer.from(`${JSON.stringify(lock)}\n`);
    createFile(path, bytes, { ...rest, syncFolder: () => {} });
    return true;
  } catch (error) {
    const isReading = lock.kind === 'read' && error instanceof LacunaError;
    if (isReading && WITHOUT_LOCK.has(error.errno)) return false;
    throw error;
  }
}

/** All locks on a machine. */
export function locksOf(places: MachinePlaces): FoundLock[] {
  const here = thisHolder();
  return namesIn(places.locks)
    .filter((name) => /^(read|add|change)-[0-9a-f]{16}\.json$/.test(name))
    .flatMap((name) => {
      const path = join(places.locks, name);
      const bytes = readIfThere(path);
      // It was released meanwhile.
      if (bytes === undefined) return [];
      const lock = parse(bytes);
      return [{ path, lock, life: lock === undefined ? 'unknown' : lifeOf(lock, here) } as const];
    });
}

function parse(bytes: Buffer): LockFile | undefined {
  try {
    const lock = JSON.parse(bytes.toString('utf8'));
    return typeof lock?.host === 'string' && typeof lock.pid === 'number' ? lock : undefined;
  } catch {
    return undefined;
  }
}

function refuses(kind: LockKind, { path, lock }: FoundLock): boolean {
  // What cannot be read says its kind by its name.
  const other = lock?.kind ?? (/(read|add|change)-[0-9a-f]{16}\.json$/.exec(path)![1] as LockKind);
  return REFUSES[kind].includes(other);
}

function lockedBy(machine: string, { path, lock, life }: FoundLock): LacunaError {
  const advice =
    life === 'alive'
      ? 'wait until it has ended'
      : 'wait until it has ended, or run "lacuna unlock" if you know that it is dead';
  const by =
    lock === undefined
      ? `somebody (${path} cannot be read)`
      : `${lock.purpose} of process ${lock.pid} on ${lock.host.split(' ')[0]} since ${lock.since}`;
  const message = `The restore points of ${machine} are locked by ${by}: ${advice}`;
  return new LacunaError('ERR_REPOSITORY_LOCKED', message, { device: path, retryable: true });
}

/** Removes locks whose holder is not known to live; returns those that were removed, and those that stay. */
export function unlock(places: MachinePlaces): { removed: FoundLock[]; kept: FoundLock[] } {
  const found = locksOf(places);
  const removed = found.filter(({ life }) => life !== 'alive');
  for (const { path } of removed) {
    attempt('remove', path, () => fs.rmSync(path, { force: true }));
  }
  return { removed, kept: found.filter(({ life }) => life === 'alive') };
}
