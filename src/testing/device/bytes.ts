import assert from 'node:assert/strict';
import { Random } from '../shared/index.js';
import { assertBytes, type DeviceTest, ODD, readAll } from './subject.js';

const readsBack: DeviceTest = async (device, { seed = 1 }) => {
  const bytes = new Random(seed).bytes(65_536);
  await device.write(65_536, bytes);
  assertBytes(await readAll(device, 65_536, 65_536), bytes, 'aligned');
  await device.write(device.size - ODD, bytes.subarray(0, ODD));
  assertBytes(await readAll(device, device.size - ODD, ODD), bytes.subarray(0, ODD), 'at the end');
};

const leavesNeighbours: DeviceTest = async (device, { seed = 1 }) => {
  const random = new Random(seed);
  const model = random.bytes(131_072);
  await device.write(0, model);
  for (const [offset, length] of [
    [1, 1],
    [511, 2],
    [4095, ODD],
    [65_535, 2],
    [70_000, 32_768],
  ]) {
    const bytes = random.bytes(length);
    await device.write(offset, bytes);
    model.set(bytes, offset);
    assertBytes(await readAll(device, 0, model.length), model, `${length} bytes at ${offset}`);
  }
};

const usesViews: DeviceTest = async (device, { seed = 1 }) => {
  const shared = new Uint8Array(new SharedArrayBuffer(ODD + 200)).fill(9);
  const bytes = new Random(seed).bytes(ODD);
  shared.set(bytes, 100);
  await device.write(1000, shared.subarray(100, 100 + ODD));
  shared.fill(9);
  await device.read(1000, shared.subarray(100, 100 + ODD));
  assertBytes(shared.slice(100, 100 + ODD), bytes, 'shared memory');
  assert.equal(shared[99], 9, 'a read filled a byte before its target');
  assert.equal(shared[100 + ODD], 9, 'a read filled a byte behind its target');
};

const zeroes: DeviceTest = async (device, { seed = 1 }) => {
  const model = new Random(seed).bytes(device.size);
  const variants = [{}, { unmap: false }, { unmap: true }, { fua: true }];
  for (const [index, options] of variants.entries()) {
    const offset = index * 30_000 + (index % 2);
    await device.write(0, model);
    await device.zero(offset, ODD, options);
    const expected = model.slice().fill(0, offset, offset + ODD);
    assertBytes(await readAll(device), expected, JSON.stringify(options));
  }
  await device.zero(device.size - ODD, ODD);
  assertBytes(await readAll(device, device.size - ODD, ODD), new Uint8Array(ODD), 'at the end');
  await device.zero(0, device.size);
  assertBytes(await readAll(device), new Uint8Array(device.size), 'everything');
};

const discards: DeviceTest = async (device, { seed = 1 }) => {
  if (!device.capabilities.discard) return;
  const model = new Random(seed).bytes(device.size);
  await device.write(0, model);
  await device.discard(10_001, 100_001);
  const bytes = await readAll(device);
  model.set(bytes.subarray(10_001, 110_002), 10_001);
  assertBytes(bytes, model, 'outside of what was discarded');
};

const flushes: DeviceTest = async (device) => {
  await device.write(0, new Uint8Array(4096).fill(1), { fua: true });
  await device.write(4096, new Uint8Array(10).fill(2));
  await device.flush();
};

const forgetsZero: DeviceTest = async (device) => {
  if (device.capabilities.knownZero) {
    assertBytes(await readAll(device), new Uint8Array(device.size), 'a device known to be zero');
  }
  await device.write(5, Uint8Array.of(1));
  assert.equal(device.capabilities.knownZero, false, 'known to be zero after a write');
};

/** What is read is what was written. */
export const byteTests: Record<string, DeviceTest> = {
  'reads back what was written': readsBack,
  'changes nothing beside an unaligned write': leavesNeighbours,
  'reads into and writes from a part of shared memory': usesViews,
  'zeroes a range and nothing beside it, whatever the options': zeroes,
  'changes nothing outside of what is discarded': discards,
  'flushes, and writes with forced unit access': flushes,
  'reads as zero while it says so, and stops saying so': forgetsZero,
};
