/** What a session has in a machine, written before it is there, so that another process can take it away. */
import fs from 'node:fs';
import { join } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import { storeFile } from '../../files/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { MigrationCapability, QmpAddress } from '../../qmp/index.js';
import type { VirshDomain } from '../virsh/index.js';

/** A disk as a journal keeps it. */
export interface JournalDisk {
  readonly name: string;
  readonly qdev?: string | undefined;
  readonly file: string;
  /** Where it is reached through its monitor. */
  readonly node?: string | undefined;
}

/** A view that another process can go on reading. */
export interface StandingView {
  readonly kind: 'overlay' | 'access';
  /** The point in time that it shows, ISO 8601. */
  readonly time: string;
  /** The file systems of the guest were frozen then. */
  readonly wasFrozen: boolean;
  /** What its report says besides, such as why they were not. */
  readonly warnings: readonly string[];
  /** In the order of the disks. */
  readonly disks: readonly StandingDisk[];
}

interface StandingDisk {
  /** Bytes. */
  readonly size: number;
  readonly mode: 'full' | 'incremental';
  readonly reason: string;
}

export interface Journal {
  readonly format: 'lacuna backup session';
  readonly version: 1;
  readonly prefix: string;
  /** How the machine is reached: through its monitor, */
  readonly monitor?: QmpAddress | undefined;
  /** or through libvirt. */
  readonly libvirt?: VirshDomain | undefined;
  /** The agent that was told to freeze, and was not seen to thaw. */
  readonly frozen?: QmpAddress | VirshDomain | undefined;
  /** The NBD server, and whether the session starts it. */
  readonly nbd: { readonly server: NbdServerAddress; readonly isOurs: boolean };
  /** The bitmaps that the session adds count from here; absent where it adds none. */
  readonly generation?: string | undefined;
  /**
   * A migration of the machine's memory may be under way, and must not be left waiting: these are its capabilities as they
   * were before. Absent where none was begun.
   */
  readonly moves?: readonly MigrationCapability[] | undefined;
  /** What it began from. */
  readonly base?: string | undefined;
  /** The bitmaps that it began from stay when it succeeds. */
  readonly keepsBase: boolean;
  readonly disks: readonly JournalDisk[];
  /** Absent until all of it can be read, and where nobody can go on with it. */
  readonly standing?: StandingView | undefined;
  /** `accepted`: the caller has made the new point in time durable. */
  readonly phase: 'begun' | 'accepted';
}

const NAME = 'journal.json';

/** Writes a journal over the last one; it is durable when this returns. */
export async function writeJournal(folder: string, journal: Journal): Promise<void> {
  const text = `${JSON.stringify(journal, null, 2)}\n`;
  await storeFile('write the journal', join(folder, NAME), text);
}

/**
 * Reads the journal of a session; undefined where there is none yet, and so nothing was done.
 *
 * @throws LacunaError ERR_MACHINE_LEFTOVERS where it is none of ours.
 */
export function readJournal(folder: string): Journal | undefined {
  const path = join(folder, NAME);
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(path, error);
  }
  try {
    const journal = JSON.parse(text) as Journal;
    if (isJournal(journal)) return journal;
  } catch (error) {
    throw unreadable(path, error);
  }
  throw unreadable(path);
}

/** The generation whose bitmaps are not needed any more, however far the session has come. */
export function obsoleteOf(journal: Journal, newest: string | null): string | undefined {
  const { generation, base, keepsBase, phase } = journal;
  if (generation === undefined) return undefined;
  if (generation !== newest && phase !== 'accepted') return generation;
  return keepsBase || base === newest ? undefined : base;
}

function isJournal(value: Journal): boolean {
  return (
    value?.format === 'lacuna backup session' &&
    value.version === 1 &&
    typeof value.prefix === 'string' &&
    typeof value.nbd?.isOurs === 'boolean' &&
    Array.isArray(value.disks)
  );
}

function unreadable(path: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_MACHINE_LEFTOVERS',
    `${path} cannot be read as the journal of a backup, so what that backup has left in a machine is not known: look for names that begin like its folder's`,
    { device: path, cause },
  );
}
