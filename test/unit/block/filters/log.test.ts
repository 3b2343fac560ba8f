import { linkSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  Device,
  type DeviceDescription,
  type LoggedRequest,
  MemoryDriver,
  openDevice,
  withLog,
} from '#dist/block/index.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const folder = temporaryFolder();
const memory: DeviceDescription = { driver: 'memory', size: 65_536 };
let logs = 0;

const newLog = () => join(folder, `${logs++}.log`);

/** The lines of a log, without what differs from run to run. */
function linesOf(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/^\S+ /, '').replace(/ms=\S+ /, ''));
}

describe('log', () => {
  it('writes one line for each request, and adds to what is there', async () => {
    const path = newLog();
    writeFileSync(path, 'earlier line\n');
    const device = await openDevice(
      { driver: 'log', 'log-file': path, file: memory },
      { writable: true },
    );
    await device.write(512, new Uint8Array(10));
    await device.read(0, new Uint8Array(4096));
    await device.extents(0, 65_536);
    await device.close();
    expect(linesOf(path)).toEqual([
      'line',
      'write offset=512 length=10 ok',
      'read offset=0 length=4096 ok',
      'status offset=0 length=65536 ok',
    ]);
  });

  it('writes what failed, once', async () => {
    const path = newLog();
    const file = { driver: 'error', operations: ['read'], file: memory } as DeviceDescription;
    const device = await openDevice({ driver: 'log', 'log-file': path, file });
    await expect(device.read(0, new Uint8Array(1))).rejects.toThrow('EIO');
    await device.close();
    expect(linesOf(path)).toEqual([
      expect.stringMatching(/^read offset=0 length=1 ".* fails with EIO, .*"$/),
    ]);
  });

  it('refuses a file that holds a part of the disk, by whatever name', async () => {
    const disk = join(folder, 'disk.raw');
    const link = join(folder, 'link.raw');
    writeFileSync(disk, Buffer.alloc(4096, 1));
    linkSync(disk, link);
    const file = { driver: 'file', filename: disk } as const;
    for (const path of [disk, link]) {
      await expect(openDevice({ driver: 'log', 'log-file': path, file })).rejects.toMatchObject({
        code: 'ERR_DEVICE_OPEN',
        message: expect.stringContaining('it holds a part of the disk'),
      });
    }
    expect(readFileSync(disk)).toEqual(Buffer.alloc(4096, 1));
  });

  it('says that a log cannot be written', async () => {
    const wanted = {
      driver: 'log',
      'log-file': join(folder, 'no', 'x.log'),
      file: memory,
    } as const;
    await expect(openDevice(wanted)).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  });
});

describe('withLog', () => {
  it('tells of every request that has ended, whether it failed or not', async () => {
    const told: LoggedRequest[] = [];
    const device = withLog(new Device(new MemoryDriver({ size: 4096 })), (each) => told.push(each));
    await device.write(0, new Uint8Array(10));
    const end = AbortSignal.abort();
    await expect(device.read(0, new Uint8Array(1), { signal: end })).rejects.toThrow();
    await device.read(5, new Uint8Array(1));
    await device.close();
    expect(told.map(({ operation, offset, length }) => [operation, offset, length])).toEqual([
      ['write', 0, 10],
      ['read', 5, 1],
    ]);
  });

  it('fails the request whose telling fails, and tells of it once', async () => {
    let calls = 0;
    const device = withLog(new Device(new MemoryDriver({ size: 4096 })), () => {
      calls++;
      throw new Error('no more paper');
    });
    await expect(device.read(0, new Uint8Array(1))).rejects.toThrow('no more paper');
    expect(calls).toBe(1);
    await device.close();
  });
});
