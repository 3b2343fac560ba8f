/**
 * Who may use a file that is made. One that replaces another keeps its owner, mode, access control list and extended
 * attributes; a new one is not open to more people than what it is made from. What cannot be kept or found out is
 * decided for the narrower right.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { ACL, DEFAULT_ACL, rightsIn, withoutGroup } from './acl.js';
import { isSameFile } from './places.js';
import { errnoName, type FileCalls, fileCalls } from './system-calls.js';

export const OWNER_ONLY = 0o600;
const EVERYBODY = 0o666;
const PERMISSIONS = 0o777;
const GROUP = 0o070;

/** They speak of the content, which is another one in the new file. */
const OF_CONTENT = new Set(['security.ima', 'security.evm', 'security.capability']);

/** Answers that mean "there is none", and those of file systems that keep no such thing. */
const NONE = new Set(['ENODATA', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

/**
 * Gives an open file, which nobody but its owner may use until now, the owner, mode, list and attributes of the file that
 * it replaces. Access is widened last.
 *
 * @param name the file that is replaced
 * @param old what it is now
 * @returns what could not be kept, as ends of a sentence.
 */
export function keepAccess(fd: number, name: string, old: fs.BigIntStats): string[] {
  const opened = openOld(name, old);
  try {
    // By its descriptor, so that nobody can have us look at another file.
    return keepAll(fd, opened === undefined ? name : `/proc/self/fd/${opened}`, old);
  } finally {
    if (opened !== undefined) fs.closeSync(opened);
  }
}

/** Undefined where this user may not read it, or where it is another file by now. */
function openOld(name: string, old: fs.BigIntStats): number | undefined {
  if (fileCalls() === undefined) return undefined;
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  let fd: number;
  try {
    fd = fs.openSync(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return undefined;
  }
  if (isSameFile(fs.fstatSync(fd, { bigint: true }), old)) return fd;
  fs.closeSync(fd);
  return undefined;
}

function keepAll(fd: number, name: string, old: fs.BigIntStats): string[] {
  const lost: string[] = [];
  const isGroupKept = keepOwner(fd, old, lost);
  const mode = Number(old.mode) & PERMISSIONS;
  const calls = fileCalls();
  if (calls === undefined) {
    setMode(fd, isGroupKept ? unlisted(mode) : mode & ~GROUP, lost);
    return lost;
  }
  const isListKept = keepAttributes(calls, fd, name, lost);
  const kept = isListKept && keepList(calls, fd, name, isGroupKept);
  if (kept === 'listed') return lost;
  if (kept) setMode(fd, isGroupKept ? mode : mode & ~GROUP, lost);
  else {
    lost.push('its access control list: only its owner may use it now');
    setMode(fd, mode & 0o700, lost);
  }
  return lost;
}

/** Some file systems give all files one mode, and refuse another; until now only the owner may use the file, if any. */
function setMode(fd: number, mode: number, lost: string[]): void {
  try {
    fs.fchmodSync(fd, mode);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if ((fs.fstatSync(fd).mode & PERMISSIONS) === mode) return;
    lost.push(`its mode (${code})`);
  }
}

/** @returns whether the group is the old one. */
function keepOwner(fd: number, old: fs.BigIntStats, lost: string[]): boolean {
  const [uid, gid] = [Number(old.uid), Number(old.gid)];
  const isOwner = () => {
    const now = fs.fstatSync(fd);
    return { owner: now.uid === uid, group: now.gid === gid };
  };
  if (!(isOwner().owner && isOwner().group)) {
    // Only the system's administrator gives files away, but a member of the group may keep that.
    for (const owner of [uid, -1]) {
      try {
        fs.fchownSync(fd, owner, gid);
        break;
      } catch {
        // The next one, or none.
      }
    }
  }
  const { owner, group } = isOwner();
  if (!owner) lost.push('its owner');
  if (!group) lost.push('its group, whose rights nobody has now');
  return group;
}

/** Where lists cannot be seen, the group's bits may be those of a list. */
function unlisted(mode: number): number {
  if (process.platform !== 'linux') return mode;
  return (mode & ~GROUP) | (mode & GROUP & ((mode & 7) << 3));
}

/** @returns whether all that decides on access was kept; the POSIX list is not among it. */
function keepAttributes(calls: FileCalls, fd: number, name: string, lost: string[]): boolean {
  const names = calls.attributes(name);
  if (typeof names === 'number') return NONE.has(errnoName(names));
  let isSafe = true;
  for (const attribute of names) {
    if (attribute === ACL || OF_CONTENT.has(attribute)) continue;
    const value = calls.attribute(name, attribute);
    const isKept = typeof value !== 'number' && setAttribute(calls, fd, attribute, value);
    if (isKept || (typeof value === 'number' && NONE.has(errnoName(value)))) continue;
    if (attribute.startsWith('system.')) isSafe = false;
    else lost.push(`its attribute ${attribute}`);
  }
  return isSafe;
}

/** Some, such as the label of a security module, are there already, and nobody may set them. */
function setAttribute(calls: FileCalls, fd: number, name: string, value: Buffer): boolean {
  const now = calls.attribute(`/proc/self/fd/${fd}`, name);
  return (Buffer.isBuffer(now) && now.equals(value)) || calls.setAttribute(fd, name, value) >= 0;
}

/** @returns `listed` where a list was kept, which is the mode as well; true where there is none; false for a failure. */
function keepList(
  calls: FileCalls,
  fd: number,
  name: string,
  isGroupKept: boolean,
): 'listed' | boolean {
  const list = calls.attribute(name, ACL);
  if (typeof list !== 'number') {
    const kept = isGroupKept ? list : withoutGroup(list);
    return calls.setAttribute(fd, ACL, kept) >= 0 && 'listed';
  }
  if (!NONE.has(errnoName(list))) return false;
  // The folder may have given the new file a list, of people who could not use the old one.
  const removed = calls.removeAttribute(fd, ACL);
  return removed >= 0 || NONE.has(errnoName(removed));
}

/**
 * The mode that a new file is made with, less what the process masks.
 *
 * @param path where it is made
 * @param sources the files that it is made from
 */
export function modeBeside(path: string, sources: readonly string[]): number {
  return sources.reduce((mode, source) => mode & modeFrom(path, source), EVERYBODY);
}

function modeFrom(path: string, source: string): number {
  const stat = fs.statSync(source, { throwIfNoEntry: false });
  if (stat === undefined) return EVERYBODY;
  const calls = fileCalls();
  const list = calls?.attribute(source, ACL);
  const rights = rightsOf(stat.mode, list);
  const isKnown = calls !== undefined || process.platform !== 'linux';
  const isSameGroup = isKnown && groupIn(path) === stat.gid && !givesList(calls, path);
  const group = isSameGroup ? rights.group : rights.everybody;
  const other = isSameGroup ? rights.other : rights.everybody;
  return ((stat.mode & 0o600) | OWNER_ONLY | (group << 3) | other) & EVERYBODY;
}

function rightsOf(mode: number, list: Buffer | number | undefined) {
  const [group, other] = [(mode >> 3) & 7, mode & 7];
  if (!Buffer.isBuffer(list)) return { group, other, everybody: group & other };
  // Somebody who is named may have less than the group and others, and is one of them for the new file.
  const rights = rightsIn(list);
  const allowed = rights.group & rights.named;
  return { group: allowed, other: other & rights.named, everybody: allowed & other };
}

/** The group that a new file gets. */
function groupIn(path: string): number | undefined {
  const folder = fs.statSync(dirname(path), { throwIfNoEntry: false });
  const isInherited = folder !== undefined && (folder.mode & 0o2000) !== 0;
  return isInherited ? folder.gid : process.getegid?.();
}

/** Whether new files in the folder get a list of people. */
function givesList(calls: FileCalls | undefined, path: string): boolean {
  return Buffer.isBuffer(calls?.attribute(dirname(path), DEFAULT_ACL));
}
