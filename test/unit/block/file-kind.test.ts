/** Devices that a test cannot have are played: the rules are those of the code that opens real ones. */
import fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type InspectOperations, inspect } from '#dist/block/drivers/file/file-kind.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const file = join(temporaryFolder(), 'device');
fs.writeFileSync(file, '');

interface Played {
  size?: number;
  isReadOnly?: boolean;
  mounts?: string[];
  /** Fails opening like this where it is exclusive. */
  held?: boolean;
  /** Fails opening like this. */
  errno?: string;
}

/** A block device, and the flags that it was opened with. */
function played({ size = 4096, isReadOnly = false, mounts = [], held, errno }: Played) {
  const flags: number[] = [];
  const block = () =>
    Object.assign(fs.statSync(file), {
      rdev: 0x810,
      isBlockDevice: () => true,
      isFile: () => false,
    });
  const fails = (code: string) => Object.assign(new Error(code), { code });
  const operations: InspectOperations = {
    stat: block,
    fstat: block,
    open: (_path, how) => {
      flags.push(how);
      if (errno !== undefined) throw fails(errno);
      if (held && how & fs.constants.O_EXCL) throw fails('EBUSY');
      return fs.openSync(file, 'r');
    },
    geometryOf: () => ({ size, sector: 512 }),
    isReadOnly: () => isReadOnly,
    mountsOf: () => mounts,
  };
  return { operations, flags };
}

function opened(device: Played, how: { readOnly: boolean; alone: boolean }): number {
  const { operations, flags } = played(device);
  const { fd } = inspect('/dev/sdz', { ...how, operations });
  fs.closeSync(fd);
  return flags[0];
}

const WRITE = { readOnly: false, alone: true };
const READ = { readOnly: true, alone: true };
const INSIST = { readOnly: false, alone: false };

describe('a block device', () => {
  it('is written by one who has it alone, and read beside others', () => {
    expect(opened({}, WRITE) & fs.constants.O_EXCL).toBeTruthy();
    expect(opened({}, READ) & fs.constants.O_EXCL).toBe(0);
    expect(opened({ held: true }, READ)).toBe(fs.constants.O_RDONLY);
  });

  it('is not written while it is mounted or in use, unless the caller insists', () => {
    expect(() => opened({ held: true, mounts: ['/srv'] }, WRITE)).toThrow(
      expect.objectContaining({
        code: 'ERR_DEVICE_LOCKED',
        message: expect.stringMatching(
          /\/dev\/sdz for writing: it is mounted on \/srv.*--force-in-use/,
        ),
      }),
    );
    expect(() => opened({ held: true }, WRITE)).toThrow(/swap, LVM, RAID/);
    expect(opened({ held: true }, INSIST)).toBe(fs.constants.O_RDWR);
  });

  it('that is read-only is not opened for writing', () => {
    const error = { code: 'ERR_DEVICE_OPEN', errno: 'EROFS' };
    for (const how of [WRITE, INSIST]) {
      expect(() => opened({ isReadOnly: true }, how)).toThrow(expect.objectContaining(error));
    }
    expect(opened({ isReadOnly: true }, READ)).toBe(fs.constants.O_RDONLY);
  });

  it('that is not ready is not a disk of 0 bytes', () => {
    for (const how of [READ, WRITE]) {
      expect(() => opened({ size: 0 }, how)).toThrow(/the device is not ready/);
      expect(() => opened({ errno: 'ENOMEDIUM' }, how)).toThrow(/the device is not ready/);
    }
  });
});
