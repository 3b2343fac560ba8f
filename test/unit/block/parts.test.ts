import { describe, expect, test } from 'vitest';
import { NullDriver } from '#dist/block/drivers/null/index.js';
import { RawDriver } from '#dist/block/drivers/raw/raw.js';
import {
  changeHolder,
  Device,
  type DeviceDescription,
  holderOf,
  imageOf,
  isRemote,
  openDevice,
  sizedFor,
} from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';

const NBD = { driver: 'nbd', server: { type: 'unix', path: '/run/nbd.sock' } } as const;
const PART: DeviceDescription = { driver: 'raw', offset: 512, file: NBD };

describe('a part of a device', () => {
  test('is answered by what it is a part of, through filters and further parts', () => {
    const file = {
      driver: 'raw',
      size: 4096,
      file: { driver: 'delay', milliseconds: 0, file: NBD },
    };
    const nested = { driver: 'throttle', file: { driver: 'raw', file } } as DeviceDescription;
    expect(holderOf(nested)).toBe(NBD);
    expect(isRemote(nested)).toBe(true);
    const changed = changeHolder(nested, (own) => ({ ...own, 'reconnect-delay': 5 }) as never);
    expect(holderOf(changed)).toEqual({ ...NBD, 'reconnect-delay': 5 });
    expect(changeHolder(changed, () => NBD)).toEqual(nested);
  });

  test('is no image, whatever it is a part of, and what lies in an image is answered by that', () => {
    const image = { driver: 'qcow2', file: PART } as const;
    expect(imageOf({ driver: 'raw', file: image })).toBeUndefined();
    expect(holderOf({ driver: 'raw', file: image })).toBe(image);
  });

  test('has the size of what is copied to it, unless that is said', () => {
    expect(sizedFor(PART, 1000)).toEqual({ ...PART, size: 1000 });
    expect(sizedFor({ ...PART, size: 7 } as DeviceDescription, 1000)).toMatchObject({ size: 7 });
  });

  test('tells the size that it has, so that each opening has the same', async () => {
    const file = { driver: 'null', size: 10_000 } as const;
    await using device = await openDevice({ driver: 'raw', offset: 1000, file });
    expect(device.size).toBe(9000);
    expect(device.description).toMatchObject({ driver: 'raw', offset: 1000, size: 9000 });
  });

  test('lies inside its device', async () => {
    const file = { driver: 'null', size: 10_000 } as const;
    const open = (offset: number, size?: number) =>
      openDevice({ driver: 'raw', offset, file, ...(size !== undefined && { size }) });
    await expect(open(10_001)).rejects.toMatchObject({ code: 'ERR_DEVICE_SHORT' });
    await expect(open(5000, 5001)).rejects.toMatchObject({ code: 'ERR_DEVICE_SHORT' });
    await using empty = await open(10_000);
    expect(empty.size).toBe(0);
  });

  test('says what its device has forgotten, and that the caller writes it again', async () => {
    const forgotten = new LacunaError('ERR_NBD_UNFLUSHED', 'the connection was lost');
    let again = 0;
    const below = Object.assign(new NullDriver({ driver: 'null', size: 10_000 }), {
      forgotten,
      writesAgain: () => again++,
    });
    const opening = { above: [], open: async () => new Device(below) };
    const description = { driver: 'raw', file: { driver: 'null', size: 10_000 } } as const;
    await using device = new Device(await RawDriver.open(description, opening as never));
    expect(device.forgotten).toBe(forgotten);
    device.writesAgain();
    expect(again).toBe(1);
  });
});
