import { execFileSync } from 'node:child_process';
import { rmSync, statSync, truncateSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { createRawFile, openDevice } from '#dist/block/index.js';
import { attachLoopDevice } from '../support/loop-device.js';
import { nothing, suite } from './suites.js';

const SIZE = 1024 * 1024;

describe.each([512, 4096])('a block device with sectors of %d bytes', (sector) => {
  const loop = attachLoopDevice(SIZE, sector);
  if (loop === undefined) {
    it('needs a loop device: run the tests as root, where losetup may attach one', () => {
      expect.fail('no loop device could be attached');
    });
    return;
  }
  afterAll(() => loop.detach());

  suite('contract', {
    size: SIZE,
    open: async () => ({
      device: await openDevice(loop.path, { writable: true }),
      dispose: nothing,
    }),
  });

  it('says its size and its sectors', async () => {
    await using device = await openDevice(loop.path, { writable: true });
    expect(device.size).toBe(SIZE);
    expect(device.limits.minimum).toBe(sector);
    expect(device.capabilities).toMatchObject({ exactStatus: false, contexts: [], zero: true });
  });

  it('is opened again by its number, whatever names it has', async () => {
    const other = `${loop.path}-by-another-name`;
    const { rdev } = statSync(loop.path);
    await using device = await openDevice(loop.path);
    expect(device.description).toMatchObject({ inode: String(rdev) });
    execFileSync('cp', ['--archive', loop.path, other]);
    try {
      await using again = await openDevice({ ...device.description!, filename: other } as never);
      expect(again.size).toBe(SIZE);
    } finally {
      rmSync(other);
    }
  });

  it('is never replaced by a new file', async () => {
    const error = { code: 'ERR_DEVICE_OPEN', errno: 'EEXIST' };
    await expect(createRawFile(loop.path, SIZE)).rejects.toMatchObject(error);
  });

  it('tells when its medium fails', async () => {
    await using device = await openDevice(loop.path);
    truncateSync(loop.file, SIZE / 2);
    const read = device.read(SIZE - 65_536, new Uint8Array(65_536));
    await expect(read).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
      errno: 'EIO',
      device: loop.path,
      message: expect.stringContaining('see the system log'),
    });
    truncateSync(loop.file, SIZE);
  });
});
