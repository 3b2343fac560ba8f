import assert from 'node:assert/strict';
import type { BlockDevice } from '../../block/index.js';
import { assertCode, type DeviceTest, readAll } from './subject.js';

type Request = (offset: number, length: number, signal?: AbortSignal) => Promise<unknown>;

/** Every method that takes a range, by name; `denied` tells whether capabilities deny it. */
function requests(device: BlockDevice): { name: string; request: Request; denied: boolean }[] {
  const { write, discard } = device.capabilities;
  const bytes = (length: number) => new Uint8Array(Math.max(0, Math.trunc(length) || 0));
  const copyFrom: Request | undefined =
    device.copyFrom &&
    ((offset, length, signal) =>
      device.copyFrom!(device, { sourceOffset: offset, targetOffset: offset, length }, { signal }));
  const rows: [string, boolean, Request][] = [
    ['read', true, (offset, length, signal) => device.read(offset, bytes(length), { signal })],
    ['write', write, (offset, length, signal) => device.write(offset, bytes(length), { signal })],
    ['zero', write, (offset, length, signal) => device.zero(offset, length, { signal })],
    ['discard', discard, (offset, length, signal) => device.discard(offset, length, { signal })],
    ['extents', true, (offset, length, signal) => device.extents(offset, length, { signal })],
    [
      'someExtents',
      true,
      (offset, length, signal) => device.someExtents(offset, length, { signal }),
    ],
  ];
  if (copyFrom) rows.push(['copyFrom', write, copyFrom]);
  return rows.map(([name, allowed, request]) => ({ name, request, denied: !allowed }));
}

const refusesRanges: DeviceTest = async (device) => {
  for (const { name, request } of requests(device)) {
    for (const [offset, length] of [
      [device.size, 1],
      [device.size - 10, 11],
      [-1, 1],
      [0.5, 1],
      [Number.NaN, 1],
      [Number.MAX_SAFE_INTEGER, 10],
      [2 ** 60, 1],
    ]) {
      await assert.rejects(request(offset, length), RangeError, `${name} ${length} at ${offset}`);
    }
  }
  for (const { name, request } of requests(device).slice(2)) {
    if (name === 'write') continue;
    await assert.rejects(request(0, device.size + 1), RangeError, name);
    await assert.rejects(request(0, -1), RangeError, name);
    await assert.rejects(request(0, 1.5), RangeError, name);
  }
};

const refusesTypes: DeviceTest = async (device) => {
  for (const { name, request } of requests(device)) {
    await assert.rejects(request('0' as never, 1), TypeError, name);
    await assert.rejects(request(0n as never, 1), TypeError, name);
  }
  for (const buffer of [undefined, null, [1, 2], new ArrayBuffer(8), 'text', new Uint16Array(4)]) {
    await assert.rejects(device.read(0, buffer as never), TypeError);
    await assert.rejects(device.write(0, buffer as never), TypeError);
  }
};

const doesNothing: DeviceTest = async (device) => {
  for (const { name, request, denied } of requests(device)) {
    if (denied) continue;
    await assert.doesNotReject(request(0, 0), name);
    await assert.doesNotReject(request(device.size, 0), name);
  }
};

const aborts: DeviceTest = async (device) => {
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  for (const { request } of requests(device))
    await assertCode(request(0, 1, signal), 'ERR_ABORTED');
  await assert.rejects(device.flush({ signal }), { name: 'AbortError', cause: reason });
};

const closes: DeviceTest = async (device) => {
  const target = new Uint8Array(device.limits.preferred);
  const inFlight = [device.read(0, target), device.read(0, target.slice()), device.extents(0, 1)];
  const closing = device.close();
  assert.equal(device.close(), closing, 'closing again must give the same answer');
  await Promise.all(inFlight);
  await closing;
  for (const { request } of requests(device)) await assertCode(request(0, 1), 'ERR_DEVICE_CLOSED');
  await assertCode(device.flush(), 'ERR_DEVICE_CLOSED');
  await device.close();
};

const matchesCapabilities: DeviceTest = async (device) => {
  const { write, zero, fastZero, discard, flush } = device.capabilities;
  assert(write || !(zero || discard || flush), 'zero, discard and flush need write');
  assert(zero || !fastZero, 'a fast zero needs zero');
  for (const { request, denied } of requests(device)) {
    if (denied) await assertCode(request(0, 1), 'ERR_DEVICE_UNSUPPORTED');
  }
  if (!fastZero) {
    await assertCode(device.zero(0, 4096, { fast: true }), 'ERR_DEVICE_UNSUPPORTED');
  } else {
    const before = await readAll(device, 0, 65_536);
    const done = await device.zero(0, 65_536, { fast: true }).then(
      () => true,
      () => false,
    );
    const after = await readAll(device, 0, 65_536);
    assert.deepEqual(
      after,
      done ? new Uint8Array(65_536) : before,
      'all of a fast zero or nothing',
    );
  }
  await device.flush();
};

const keepsToItsLimits: DeviceTest = async (device, { size }) => {
  assert.equal(device.size, size, 'size');
  const { minimum, preferred, maximum, maximumZero } = device.limits;
  assert(preferred >= minimum, 'preferred is at least the minimum');
  assert.equal(maximum % minimum, 0, 'maximum is a multiple of the minimum');
  assert.equal(maximumZero % minimum, 0, 'maximumZero is a multiple of the minimum');
  assert.notEqual(device.name, '', 'a device has a name');
};

/** Misuse, states and what a device says about itself. */
export const misuseTests: Record<string, DeviceTest> = {
  'says its size, its name and limits that make sense': keepsToItsLimits,
  'refuses ranges outside of the device': refusesRanges,
  'refuses arguments of the wrong type': refusesTypes,
  'does nothing for a length of 0': doesNothing,
  'does not begin when the signal has fired': aborts,
  'finishes what is in flight when closed, and refuses everything after': closes,
  'does what its capabilities say, and refuses what they deny': matchesCapabilities,
};
