import { expect, it } from 'vitest';
import type { Device } from '#dist/block/index.js';
import { checkTransfer, chooseTransfer } from '#dist/copy/run/transfer.js';
import { fakeDevice } from '../../support/fake-device.js';

const KIB = 1024;

it('a copy makes no request shorter than what either side takes at once', () => {
  const source = fakeDevice(1024 * KIB);
  const { limits } = source;
  const blocks = { ...limits, minimum: 64 * KIB, preferred: 64 * KIB };
  const target = fakeDevice(1024 * KIB, { limits: blocks });
  const load = { threads: 0, bytes: source.size };
  const options = { requestSize: 4 * KIB };
  const sizeFor = (end: Device) =>
    chooseTransfer(options, { source, target: end }, false, load).pace.requestSize;
  expect(sizeFor(source)).toBe(4 * KIB);
  expect(sizeFor(target)).toBe(64 * KIB);
});

it('a copy has room in an arena for as many threads and requests as are allowed, whatever suits both sides', () => {
  const source = fakeDevice(1024 * KIB);
  const limits = { ...source.limits, preferred: 8192 * KIB };
  const devices = { source, target: fakeDevice(1024 * KIB, { limits }) };
  for (const [threads, requests] of [
    [0, 1024],
    [2, 1024],
    [256, undefined],
  ] as const) {
    const options = { threads, requests };
    checkTransfer(options);
    const load = { threads, bytes: source.size };
    const { mostBytes } = chooseTransfer(options, devices, false, load).pace;
    expect(Math.max(1, threads) * mostBytes).toBeLessThanOrEqual(2 ** 30);
  }
});

it('a copy lets requests grow to 2 MiB, within what both sides take and what was asked for', () => {
  const MIB = 1024 * KIB;
  const source = fakeDevice(MIB);
  const { limits } = source;
  const load = { threads: 2, bytes: source.size };
  const devices = { source, target: source };
  const target = (change: Partial<typeof limits>) => {
    return { ...devices, target: fakeDevice(MIB, { limits: { ...limits, ...change } }) };
  };
  const range = (sides = devices, options = {}) => {
    const { pace } = chooseTransfer(options, sides, false, load);
    const { requestSize, largestRequest, requests, mostRequests, mostBytes } = pace;
    return [requestSize / KIB, largestRequest / KIB, requests, mostRequests, mostBytes / MIB];
  };
  expect(range()).toEqual([512, 2048, 8, 64, 64]);
  expect(range(target({ maximum: 1200 * KIB }))).toEqual([512, 1024, 8, 64, 64]);
  expect(range(target({ maximum: 256 * KIB }))).toEqual([256, 256, 8, 64, 64]);
  expect(range(target({ preferred: 8 * MIB }))).toEqual([8192, 8192, 8, 64, 64]);
  expect(range(devices, { requestSize: 512 * KIB })).toEqual([512, 512, 8, 64, 64]);
  expect(range(devices, { requests: 300 })).toEqual([512, 2048, 300, 300, 150]);
});
