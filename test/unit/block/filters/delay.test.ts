import { describe, expect, it } from 'vitest';
import { type DeviceDescription, openDevice } from '#dist/block/index.js';

const DAY_MS = 86_400_000;
const memory: DeviceDescription = { driver: 'memory', size: 4096 };

describe('delay', () => {
  it('holds back the requests that it is told to, until their signal fires', async () => {
    await using device = await openDevice(
      { driver: 'delay', milliseconds: DAY_MS, operations: ['write'], file: memory },
      { writable: true },
    );
    const end = new AbortController();
    const held = device.write(0, new Uint8Array([1, 2, 3, 4]), { signal: end.signal });
    const bytes = new Uint8Array(4);
    await device.read(0, bytes);
    expect([...bytes]).toEqual([0, 0, 0, 0]);
    end.abort();
    await expect(held).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('passes on what has waited', async () => {
    await using device = await openDevice(
      { driver: 'delay', milliseconds: 1, file: memory },
      { writable: true },
    );
    await device.write(0, new Uint8Array([1, 2, 3, 4]));
    const bytes = new Uint8Array(4);
    await device.read(0, bytes);
    expect([...bytes]).toEqual([1, 2, 3, 4]);
  });

  it.each([
    [{}, /milliseconds is missing/],
    [{ milliseconds: -1 }, /milliseconds must be a number of milliseconds/],
    [{ milliseconds: 1, operations: ['erase'] }, /operations.0 must be read or write/],
  ])('refuses %o', async (keys, message) => {
    const wanted = { driver: 'delay', file: memory, ...keys } as DeviceDescription;
    await expect(openDevice(wanted)).rejects.toThrow(message);
  });
});
