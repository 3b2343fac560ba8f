/** What a device promises, it promises through our own client and server as well. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdServer } from 'lacuna/nbd';
import { describe } from 'vitest';
import { Device, type Limits, MemoryDriver, openDevice } from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { ODD_SIZE, SIZE, suite } from '../../contract/suites.js';
import { strictDriver } from '../../support/strict-driver.js';

function through(
  size: number,
  { limits, readOnly = false }: { limits?: Partial<Limits>; readOnly?: boolean } = {},
): DeviceContractOptions {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const driver = new MemoryDriver({ size });
    const served = new Device(limits === undefined ? driver : strictDriver(driver, limits));
    const server = new NbdServer({ exports: [{ name: '', device: served, readOnly }] });
    await server.listen({ type: 'unix', path: join(folder, 's') });
    const device = await openDevice(server.uri(''), { writable: !readOnly });
    const dispose = async () => {
      await server.close({ timeoutMs: 100 });
      await rm(folder, { recursive: true, force: true });
    };
    return { device, dispose };
  };
  return { size, open, keeps: !readOnly };
}

describe('our client and server', () => {
  suite('memory', through(SIZE));
  suite('odd size', through(ODD_SIZE));
  suite('blocks of 4 KiB', through(SIZE, { limits: { minimum: 4096, preferred: 4096 } }));
  suite('odd size in blocks', through(ODD_SIZE, { limits: { minimum: 512, preferred: 4096 } }));
  suite('read-only', through(SIZE, { readOnly: true }));
});
