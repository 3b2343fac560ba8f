import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'vitest';
import { createRawFile, Device, type Limits, MemoryDriver, openDevice } from '#dist/block/index.js';
import { type DeviceContractOptions, deviceContract } from '#dist/testing/index.js';
import { strictDriver } from '../support/strict-driver.js';

export const SIZE = 1024 * 1024;
/** No multiple of any block. */
export const ODD_SIZE = SIZE + 1001;

/** Runs the contract of devices as one group of tests. */
export function suite(name: string, options: DeviceContractOptions): void {
  describe(name, () => {
    for (const { name: title, run } of deviceContract(options)) it(title, run);
  });
}

export async function nothing(): Promise<void> {}

/** Memory; with limits, behind a driver that asserts that they are kept. */
export function memory(size: number, limits?: Partial<Limits>): DeviceContractOptions {
  const open = async () => {
    const driver = new MemoryDriver({ size });
    const device = new Device(limits === undefined ? driver : strictDriver(driver, limits));
    return { device, dispose: nothing };
  };
  return { size, open };
}

/** A new raw file in a folder of its own. */
export function file(size: number, writable: boolean): DeviceContractOptions {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const filename = join(folder, 'disk.raw');
    await createRawFile(filename, size);
    const device = await openDevice(filename, { writable });
    return { device, dispose: () => rm(folder, { recursive: true }) };
  };
  return { size, open, keeps: writable };
}
