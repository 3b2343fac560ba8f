/**
 * What is known of a replica, in a file beside it. It alone decides what the next mirror begins from: what a replica holds is
 * trusted only where this file says that it equals the disk at one moment, and is caught up from the bitmap in all other
 * cases.
 */
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { storeFile } from '../../files/index.js';
import { readSmallFile } from '../../util/index.js';

const FORMAT = 'lacuna replica';

/** How far a replica is durable, while it is written. */
export interface Durable {
  /** Writes of QEMU in this run, in the order in which they were carried out. */
  readonly writes: number;
  /** Bytes of these. */
  readonly bytes: number;
  /** When the flush had ended; ISO 8601. */
  readonly at: string;
}

/** What tells whether somebody else has exchanged or changed the file of a replica. */
export interface TargetFile {
  readonly inode: string;
  /** Nanoseconds: numbers of inodes are used again. 0 where the file system does not know. */
  readonly born: string;
  readonly bytes: number;
  /** Nanoseconds. */
  readonly changed: string;
}

export interface ReplicaState {
  readonly format: typeof FORMAT;
  readonly version: 1;
  /** The disk, as messages name it. */
  readonly disk: string;
  /** Its image, as QEMU names it. */
  readonly image: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** `equal`: the replica is what the disk was when the bitmap began, or later. `changing`: it may lack anything that it marks. */
  readonly phase: 'changing' | 'equal';
  /** The bitmap that marks what the replica may lack; null where it may lack anything. */
  readonly bitmap: string | null;
  /** Bytes that this bitmap marked when the replica began to change: it marks more later, and less only if it was cleared. */
  readonly marked?: number | undefined;
  /** Bitmaps that mirrors have added to the disk, and not removed yet. */
  readonly made: readonly string[];
  readonly durable?: Durable | undefined;
  /** Undefined where the replica is no file. While it is `changing`, only `inode` and `born` are of use. */
  readonly target?: TargetFile | undefined;
}

/** Stores the state in the place of the last one; it is durable when this returns. */
export async function storeReplicaState(
  path: string,
  state: Omit<ReplicaState, 'format' | 'version'>,
): Promise<void> {
  const whole: ReplicaState = { format: FORMAT, version: 1, ...state };
  await storeFile('store the state of a replica in', path, `${JSON.stringify(whole, null, 2)}\n`);
}

/**
 * The state of a replica; undefined where there is none yet.
 *
 * @throws LacunaError ERR_REPLICA_MISMATCH where it cannot be read, or is none: it may be somebody's file.
 */
export async function readReplicaState(path: string): Promise<ReplicaState | undefined> {
  try {
    const request = { code: 'ERR_REPLICA_MISMATCH', what: 'the state of a replica in' } as const;
    const state = JSON.parse(String(await readSmallFile(path, request))) as ReplicaState;
    if (isState(state)) return state;
  } catch (error) {
    if (error instanceof LacunaError && error.errno === 'ENOENT') return undefined;
    throw unreadable(path, error);
  }
  throw unreadable(path);
}

/** What is to be seen of the file of a replica; undefined where the replica is no file. */
export function targetFile(path: string | undefined): TargetFile | undefined {
  if (path === undefined) return undefined;
  const stat = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
  if (!stat?.isFile()) return undefined;
  return {
    inode: String(stat.ino),
    born: String(stat.birthtimeNs),
    bytes: Number(stat.size),
    changed: String(stat.mtimeNs),
  };
}

/** Whether the replica is still the file that the state tells of, and unchanged where nobody was to change it. */
export function isSameTarget(
  { phase, target: before }: ReplicaState,
  now: TargetFile | undefined,
): boolean {
  if (before?.inode !== now?.inode || before?.born !== now?.born) return false;
  if (phase === 'changing') return true;
  return before?.bytes === now?.bytes && before?.changed === now?.changed;
}

function isState(value: ReplicaState): boolean {
  return (
    value?.format === FORMAT &&
    value.version === 1 &&
    typeof value.disk === 'string' &&
    typeof value.image === 'string' &&
    typeof value.size === 'number' &&
    (value.phase === 'changing' || value.phase === 'equal') &&
    (value.bitmap === null || typeof value.bitmap === 'string') &&
    Array.isArray(value.made) &&
    value.made.every((name) => typeof name === 'string')
  );
}

function unreadable(path: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_REPLICA_MISMATCH',
    `${path} holds no state of a replica that can be read, so what the replica holds is not known. If this is another file, name one of its own for the state (state). If the state was damaged, remove it and copy all of the disk (full)`,
    { device: path, cause },
  );
}
