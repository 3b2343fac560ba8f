import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type BlockDevice, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const disk = join(temporaryFolder(), 'disk.raw');
writeFileSync(disk, Buffer.alloc(65_536));
const below: DeviceDescription = { driver: 'file', filename: disk, locking: 'off' };
type Keys = Partial<Extract<DeviceDescription, { driver: 'error' }>>;

const failing = (keys: Keys) =>
  openDevice({ driver: 'error', file: below, ...keys }, { writable: true });

/** Which of some reads fail, by their number. */
async function failures(device: BlockDevice, reads: number): Promise<number[]> {
  const failed: number[] = [];
  for (let number = 1; number <= reads; number++) {
    await device.read(0, new Uint8Array(1)).catch(() => failed.push(number));
  }
  return failed;
}

describe('error', () => {
  it('fails every request where nothing else is said, and says what failed', async () => {
    await using device = await failing({});
    await expect(device.read(512, new Uint8Array(10))).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
      errno: 'EIO',
      offset: 512,
      length: 10,
    });
  });

  it('fails the request with one number', async () => {
    await using device = await failing({ nth: 3, errno: 'ENOSPC' });
    expect(await failures(device, 5)).toEqual([3]);
  });

  it('counts over all openings that come from one', async () => {
    await using first = await failing({ nth: 3 });
    await using second = await openDevice(structuredClone(first.description!));
    expect(await failures(first, 2)).toEqual([]);
    expect(await failures(second, 2)).toEqual([1]);
    expect(await failures(first, 2)).toEqual([]);
  });

  it('fails the same share of requests in every run', async () => {
    await using one = await failing({ rate: 0.25 });
    await using other = await failing({ rate: 0.25 });
    const failed = await failures(one, 400);
    expect(failed).toEqual(await failures(other, 400));
    expect(Math.abs(failed.length - 100)).toBeLessThan(10);
  });

  it('leaves requests alone that do not touch its range, and does not count them', async () => {
    await using device = await failing({ offset: 4096, length: 512, nth: 2 });
    await device.read(0, new Uint8Array(4096));
    await device.read(4608, new Uint8Array(10));
    await device.read(4000, new Uint8Array(97));
    await expect(device.read(4607, new Uint8Array(1))).rejects.toMatchObject({ errno: 'EIO' });
  });

  it('leaves operations alone that are not named', async () => {
    await using device = await failing({ operations: ['flush', 'status'] });
    await device.write(0, new Uint8Array(10));
    await expect(device.extents(0, 4096)).rejects.toMatchObject({ errno: 'EIO' });
  });

  it.each([
    [{ nth: 1.5 }, /nth must be a whole number above 0/],
    [{ nth: 0 }, /nth must be a whole number above 0/],
    [{ rate: 2 }, /rate must be a number from 0 to 1/],
    [{ errno: 'EWHAT' }, /errno must be/],
  ])('refuses %o', async (keys, message) => {
    await expect(failing(keys)).rejects.toThrow(message);
  });
});
