import assert from 'node:assert/strict';
import type { BlockDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { optionCheck } from '../../util/index.js';

/** A device to test, and how to get rid of it. */
export interface Subject {
  /** Opened for one case. */
  readonly device: BlockDevice;
  /** Removes what was made for it; called when the device is closed. */
  dispose(): Promise<void>;
}

/** What a suite is told about the devices it tests. */
export interface DeviceContractOptions {
  /** Opens a device for one case; its content does not matter, but nobody else may write to it. */
  open(): Promise<Subject>;
  /** Bytes; at least 256 KiB, or the interesting cases have no room. */
  readonly size: number;
  /** Whether it keeps what is written. Default true. */
  readonly keeps?: boolean;
  /** Seed of the random cases. */
  readonly seed?: number;
}

export const checkDeviceContract = optionCheck<DeviceContractOptions>({
  open: { needed: 'a function that opens a device for one case' },
  size: { needed: 'bytes of the device' },
  keeps: 'flag',
  seed: 'any',
});

export type DeviceTest = (device: BlockDevice, options: DeviceContractOptions) => Promise<void>;

export async function readAll(
  device: BlockDevice,
  offset = 0,
  length = device.size,
): Promise<Uint8Array> {
  // Not zeroes: bytes that a read forgets to fill must not look right.
  const bytes = new Uint8Array(length).fill(0xa5);
  await device.read(offset, bytes);
  return bytes;
}

/** Compares bytes, and names the first that differs instead of printing them all. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assert.equal(actual.byteLength, expected.byteLength, `${what}: length`);
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  assert.fail(`${what}: byte ${at} is ${actual[at]} and should be ${expected[at]}`);
}

export async function assertCode(request: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(request, (error: unknown) => {
    assert(error instanceof LacunaError, `${error} should be a LacunaError with ${code}`);
    assert.equal(error.code, code, error.message);
    return true;
  });
}

/** A length that falls short of every power of two, inside the device. */
export const ODD = 12_345;
