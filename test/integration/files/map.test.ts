import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createRawFile, openDevice } from '#dist/block/index.js';
import { Status } from '#dist/extent/index.js';
import { Random } from '#dist/testing/index.js';
import { run } from '../../support/peers.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 2 ** 20;
const folder = temporaryFolder();

test('the extents of a raw file are those that qemu-img map tells', async () => {
  const path = join(folder, 'disk.raw');
  await createRawFile(path, 16 * MIB + 1001);
  await using device = await openDevice(path, { writable: true });
  const random = new Random(7);
  for (let i = 0; i < 60; i++) {
    await device.write(random.below(16 * MIB), random.bytes(1 + random.below(1001)));
  }
  await device.zero(3 * MIB, 2 * MIB);
  await device.zero(9 * MIB + 5, MIB, { unmap: false });
  const map = await run('qemu-img', ['map', '-f', 'raw', '--output=json', path]);
  const expected = JSON.parse(map).map(
    (extent: { start: number; length: number; zero: boolean; data: boolean }) => ({
      offset: extent.start,
      length: extent.length,
      flags: extent.data ? Status.data : Status.hole | Status.zero,
    }),
  );
  const [list] = await device.extents(0, device.size);
  // QEMU rounds the size up to whole sectors.
  expected.at(-1).length = device.size - expected.at(-1).offset;
  expect(expected.length).toBeGreaterThan(30);
  expect([...list]).toEqual(expected);
});
