/** Whether the name of a file can be given to another one: what can be known before a disk is copied for nothing. */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { LacunaError } from '../errors/index.js';
import { fileCalls } from './system-calls.js';

const STICKY = 0o1000;

/** What is asked of the system, so that a test can play a file of any kind. */
export interface ReplaceableOperations {
  /** The mount points that this process sees. */
  mountPoints(): string[];
  /** Whether a path may not be changed, by an attribute of its own; `append` where it may only grow. */
  sealOf(path: string): 'immutable' | 'append' | undefined;
  statFolder(path: string): { mode: number; uid: number } | undefined;
  /** The user of this process; undefined where the system knows none. */
  user(): number | undefined;
}

const SYSTEM: ReplaceableOperations = {
  mountPoints,
  sealOf: (path) => fileCalls()?.sealOf(path),
  statFolder: (path) => fs.statSync(path, { throwIfNoEntry: false }),
  user: () => process.geteuid?.(),
};

/**
 * Refuses a name that no other file can take.
 *
 * @param owner of the file that has the name
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export function checkReplaceable(
  name: string,
  owner: number,
  { mountPoints, sealOf, statFolder, user }: ReplaceableOperations = SYSTEM,
): void {
  if (mountPoints().includes(name)) {
    throw refused(name, 'EBUSY', 'something is mounted there');
  }
  if (sealOf(name) !== undefined) {
    throw refused(name, 'EPERM', 'it is immutable, or may only be appended to (see lsattr)');
  }
  const folder = dirname(name);
  if (sealOf(folder) !== undefined) {
    throw refused(
      name,
      'EPERM',
      `its folder is immutable, or may only be added to (lsattr -d ${folder})`,
    );
  }
  const own = user();
  const stat = statFolder(folder);
  const isKept = stat !== undefined && (stat.mode & STICKY) !== 0;
  if (!isKept || own === undefined || own === 0 || own === owner || own === stat.uid) return;
  throw refused(
    name,
    'EPERM',
    "it is another user's, and in this folder only its owner may replace it",
  );
}

function refused(name: string, errno: string, why: string): LacunaError {
  const message = `Cannot replace ${name}: ${why}`;
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: name, errno });
}

/** Without a list of them nothing is known to be one. */
function mountPoints(): string[] {
  let lines: string[];
  try {
    lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  } catch {
    return [];
  }
  // 36 35 98:0 /root /mnt\040two rw,noatime - ext4 /dev/sdb rw
  return lines.flatMap((line) => {
    const path = line.split(' ')[4];
    return path === undefined ? [] : [unescaped(path)];
  });
}

/** Blanks and such are octal numbers there, byte by byte. */
function unescaped(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
