import fs from 'node:fs';
import { LacunaError } from '../../../errors/index.js';
import { fileError } from '../../../files/index.js';
import type { LockAccess } from '../../contract/index.js';
import type { FileDescription } from './description.js';
import { errnoName, type SystemCalls, systemCalls } from './ffi.js';
import { describeUsers, THIS_PROCESS } from './file-users.js';

/**
 * QEMU's locks on image files (its file driver, `locking=on`). Each byte stands for one permission; all locks on
 * them are shared ones, so that they count rather than exclude, and belong to one opening of the file:
 *
 *     100 + permission   held by who uses it
 *     200 + permission   held by who does not let others use it
 *
 * Whoever opens a file takes its own locks first and looks for contrary ones of others then, so that of two that
 * come at once at least one sees the other.
 */
const USES = 100;
const KEEPS_OTHERS_FROM = 200;

/** QEMU's numbers; the one left out, 2, writes only what is there already, which goes with everything. */
const Permission = { consistentRead: 0, write: 1, resize: 3 } as const;

/**
 * How a file is used: `write` alone; `read` beside other readers; `share` beside everybody, writers included, but not
 * where what is read makes no sense by itself; `none`, not at all, although it is open.
 */
type FileAccess = LockAccess | 'share';

const { consistentRead, write, resize } = Permission;

const USED: Record<FileAccess, readonly number[]> = {
  write: [consistentRead, write, resize],
  read: [consistentRead],
  share: [consistentRead],
  none: [],
};

const KEPT: Record<FileAccess, readonly number[]> = {
  write: [write, resize],
  read: [write, resize],
  share: [],
  none: [],
};

export interface LockRequest {
  /** Open for reading, or for both. */
  readonly fd: number;
  readonly filename: string;
  readonly access: FileAccess;
  /** How this opening has locked the file already; what that has stays locked, also where this fails. */
  readonly held?: FileAccess;
  readonly locking?: FileDescription['locking'];
  readonly calls?: SystemCalls;
}

/**
 * Locks an open file until it is closed. Where locks are not to be had, `auto` does without.
 *
 * @throws LacunaError ERR_DEVICE_LOCKED where others use the file in a way that does not go with `access`;
 * ERR_DEVICE_OPEN where `locking` is on and the system has no such locks.
 */
export async function lockImage(request: LockRequest): Promise<void> {
  const { fd, access, held: before, locking = 'auto', calls } = request;
  if (locking === 'off') return;
  if (calls === undefined || calls.isByteLocked(fd, USES) < 0) {
    if (locking === 'on') throw unlockable(request);
    return;
  }
  const had = before === undefined ? [] : bytesOf(before);
  const own = bytesOf(access).filter((byte) => !had.includes(byte));
  for (const byte of own) checked(request, calls.lockByte(fd, byte));
  const contrary = [
    ...KEPT[access].map((permission) => USES + permission),
    ...USED[access].map((permission) => KEEPS_OTHERS_FROM + permission),
  ];
  for (const byte of contrary) {
    if (checked(request, calls.isByteLocked(fd, byte)) !== 1) continue;
    // To find out by whom takes a while, in which nobody else must be refused because of this.
    for (const held of own) calls.unlockByte(fd, held);
    throw await locked(request, byte);
  }
}

/** Gives back what one way to use a file needs more than another one. */
export function unlockImage(
  { fd, locking, calls }: Pick<LockRequest, 'fd' | 'locking' | 'calls'>,
  held: FileAccess,
  access: FileAccess,
): void {
  if (locking === 'off' || calls === undefined) return;
  const kept = bytesOf(access);
  for (const byte of bytesOf(held)) if (!kept.includes(byte)) calls.unlockByte(fd, byte);
}

function bytesOf(access: FileAccess): number[] {
  return [
    ...USED[access].map((permission) => USES + permission),
    ...KEPT[access].map((permission) => KEEPS_OTHERS_FROM + permission),
  ];
}

/**
 * Keeps everybody from a file that is about to be replaced: nobody may go on writing to what is then lost. A file
 * that this user may not read is left to the system's own permissions.
 *
 * @returns what ends it; calling that again is harmless.
 * @throws LacunaError ERR_DEVICE_LOCKED where somebody uses the file.
 */
export async function guardImage(filename: string): Promise<() => void> {
  const calls = systemCalls();
  let fd: number;
  try {
    fd = fs.openSync(filename, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch {
    return () => {};
  }
  try {
    await lockImage({ fd, filename, access: 'write', calls });
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  let held = true;
  return () => {
    if (held) fs.closeSync(fd);
    held = false;
  };
}

function checked({ filename }: LockRequest, result: number): number {
  if (result >= 0) return result;
  throw fileError('ERR_DEVICE_OPEN', { action: 'lock', device: filename }, errnoName(result));
}

function unlockable({ filename }: LockRequest): LacunaError {
  const message =
    `Cannot lock ${filename}: this system or file system has no locks that QEMU knows. ` +
    'Make sure that nobody else uses the file, and say locking=auto';
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'ENOTSUP' });
}

async function locked({ fd, filename, access }: LockRequest, byte: number): Promise<LacunaError> {
  const { dev, ino } = fs.fstatSync(fd);
  const users = (await describeUsers({ dev, ino, byte, fd })) ?? 'another program';
  const deed = byte < KEEPS_OTHERS_FROM ? 'is writing it' : 'uses it and lets nobody write';
  const aim = access === 'write' ? 'writing' : 'reading';
  const message = `Cannot open ${filename} for ${aim}: ${users} ${deed}. ${adviceFor(users, access)}`;
  return new LacunaError('ERR_DEVICE_LOCKED', message, {
    device: filename,
    errno: 'EAGAIN',
    retryable: true,
  });
}

function adviceFor(users: string, access: FileAccess): string {
  if (users === THIS_PROCESS) return 'Hand over the device that is open, instead of its name';
  const live = 'The disk of a running machine is reached through its NBD export or QMP';
  if (access === 'write') return `${live}; or wait until it is closed`;
  return `${live}; force-share (-U) reads a file while it changes`;
}
