import { appendFileSync, readFileSync, truncateSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Status } from '#dist/extent/index.js';
import { file, ODD_SIZE, SIZE, suite } from './suites.js';

// Read when the first file is opened; every test file has a process of its own.
process.env.LACUNA_FFI = 'off';

it('the tests of this file really run without foreign calls', async () => {
  const { device, dispose } = await file(SIZE, true).open();
  expect(device.capabilities).toMatchObject({ exactStatus: false, fastZero: false });
  await device.close();
  await dispose();
});

it('without foreign calls a device knows that its file holds no data, unless that was cut meanwhile', async () => {
  const { device, dispose } = await file(SIZE, true).open();
  const flags = async () => (await device.extents(0, SIZE))[0].flagsAt(0);
  expect(await flags()).toBe(Status.hole | Status.zero);
  truncateSync(device.name, SIZE / 2);
  expect(await flags()).toBe(Status.data);
  truncateSync(device.name, SIZE);
  await device.write(0, Uint8Array.of(1));
  expect(await flags()).toBe(Status.data);
  await device.close();
  await dispose();
});

it('without foreign calls a device zeroes the end of its file, and nothing that was appended since it was opened', async () => {
  const { device, dispose } = await file(SIZE, true).open();
  await device.write(0, new Uint8Array(SIZE).fill(1));
  appendFileSync(device.name, 'appended');
  await device.zero(SIZE / 2, SIZE / 2);
  const zeroed = Buffer.concat([Buffer.alloc(SIZE / 2, 1), Buffer.alloc(SIZE / 2)]);
  const expected = Buffer.concat([zeroed, Buffer.from('appended')]);
  expect(readFileSync(device.name).equals(expected)).toBe(true);
  await device.close();
  await dispose();
});

suite('file without foreign calls', file(ODD_SIZE, true));
suite('read-only file without foreign calls', file(SIZE, false));
