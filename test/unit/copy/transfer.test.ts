import { expect, it } from 'vitest';
import { chooseTransfer } from '#dist/copy/transfer.js';
import { fakeDevice } from '../../support/fake-device.js';

const KIB = 1024;

it('makes no request shorter than what either side takes at once', () => {
  const source = fakeDevice(1024 * KIB);
  const { limits } = source;
  const blocks = { ...limits, minimum: 64 * KIB, preferred: 64 * KIB };
  const target = fakeDevice(1024 * KIB, { limits: blocks });
  const load = { threads: 0, bytes: source.size };
  const options = { source, target, requestSize: 4 * KIB };
  const small = { source, target: source, targetIsZero: false };
  expect(chooseTransfer(options, small, load).requestSize).toBe(4 * KIB);
  expect(chooseTransfer(options, { ...small, target }, load).requestSize).toBe(64 * KIB);
});
