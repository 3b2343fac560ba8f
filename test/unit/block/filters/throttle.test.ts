import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkDescription, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const SIZE = 65_536;
const disk = join(temporaryFolder(), 'disk.raw');
writeFileSync(disk, Buffer.alloc(SIZE));
const below: DeviceDescription = { driver: 'file', filename: disk, locking: 'off' };
/** With one byte in a nanosecond, and no waiting, the counter says how many bytes went. */
const COUNTING = { driver: 'throttle', 'bytes-per-second': 1e9, burst: 1e9, file: below } as const;

function counterOf(description: DeviceDescription | undefined, index: number): number {
  const { shared } = description as { shared: SharedArrayBuffer };
  return Number(new BigInt64Array(shared)[index]);
}

describe('throttle', () => {
  it('counts the bytes that are read and written, and no others', async () => {
    await using device = await openDevice(COUNTING, { writable: true });
    await device.write(0, new Uint8Array(1000));
    await device.read(0, new Uint8Array(234));
    await device.zero(0, 4096);
    await device.extents(0, SIZE);
    await device.flush();
    expect(counterOf(device.description, 0)).toBe(1234);
  });

  it('counts requests of every kind', async () => {
    const wanted = { driver: 'throttle', 'requests-per-second': 1e9, burst: 1e9, file: below };
    await using device = await openDevice(checkDescription(wanted), { writable: true });
    await device.write(0, new Uint8Array(1000));
    await device.read(0, new Uint8Array(234));
    await device.extents(0, SIZE);
    expect(counterOf(device.description, 1)).toBe(3);
  });

  it('has one limit for all openings that come from one', async () => {
    await using first = await openDevice(COUNTING);
    await using second = await openDevice(structuredClone(first.description!));
    await first.read(0, new Uint8Array(100));
    await second.read(0, new Uint8Array(23));
    expect(counterOf(first.description, 0)).toBe(123);
    expect(counterOf(second.description, 0)).toBe(123);
  });

  it('ends waiting when the caller ends the request', async () => {
    const slow = { driver: 'throttle', 'bytes-per-second': 1, burst: 1, file: below } as const;
    await using device = await openDevice(slow);
    const end = new AbortController();
    const first = device.read(0, new Uint8Array(SIZE));
    const second = device.read(0, new Uint8Array(SIZE), { signal: end.signal });
    end.abort();
    await expect(second).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await first;
  });

  it.each([
    [{ 'bytes-per-second': 0 }, /bytes-per-second must be above 0/],
    [{ 'requests-per-second': -1 }, /requests-per-second must be a number above 0/],
    [{ burst: 0 }, /burst must be a number above 0/],
    [{ rate: 5 }, /rate is unknown; driver throttle has the keys: (?!.*shared)/],
  ])('refuses %o', async (keys, message) => {
    const wanted = { driver: 'throttle', file: below, ...keys } as DeviceDescription;
    await expect(openDevice(wanted)).rejects.toThrow(message);
  });

  it('bears a limit so low that a request takes longer than clocks count', async () => {
    const slow = { driver: 'throttle', 'bytes-per-second': 1, burst: 1e15, file: below } as const;
    await using device = await openDevice({ ...slow, 'requests-per-second': 1e-300 });
    const end = new AbortController();
    const requests = [1, 2].map(() => device.read(0, new Uint8Array(1), { signal: end.signal }));
    end.abort();
    const ended = await Promise.allSettled(requests);
    for (const result of ended)
      expect(String((result as { reason?: unknown }).reason)).not.toMatch(/Range/);
  });
});

describe('what filters share', () => {
  it('is left out where a description is printed, and the text opens again', async () => {
    await using device = await openDevice(COUNTING);
    const text = JSON.stringify(device.description);
    expect(text).not.toContain('shared');
    await using again = await openDevice(JSON.parse(text) as DeviceDescription);
    await again.read(0, new Uint8Array(5));
    expect(counterOf(again.description, 0)).toBe(5);
    expect(counterOf(device.description, 0)).toBe(0);
  });

  it.each([7, {}, new SharedArrayBuffer(4)])(
    'is refused where a user writes it into a description: %o',
    (shared) => {
      const said = { ...COUNTING, shared } as DeviceDescription;
      expect(() => checkDescription(said)).toThrow('shared is what one opening hands to the next');
    },
  );
});
