import { expect, it } from 'vitest';
import { file, ODD_SIZE, SIZE, suite } from './suites.js';

// Read when the first file is opened; every test file has a process of its own.
process.env.LACUNA_FFI = 'off';

it('really runs without foreign calls', async () => {
  const { device, dispose } = await file(SIZE, true).open();
  expect(device.capabilities).toMatchObject({ exactStatus: false, fastZero: false });
  await device.close();
  await dispose();
});

suite('file without foreign calls', file(ODD_SIZE, true));
suite('read-only file without foreign calls', file(SIZE, false));
