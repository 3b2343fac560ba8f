import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createRawFile, openDevice } from '#dist/block/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

it('openDevice opens a null device of the largest size, which reads as zero', async () => {
  await using device = await openDevice('null:');
  expect(device.size).toBe(2 ** 53 - 512);
  expect(device.capabilities).toMatchObject({ write: false, knownZero: true });
  const [list] = await device.extents(0, device.size);
  expect(list.count).toBe(1);
});

it('openDevice makes new memory at each opening, and gives no description of it', async () => {
  await using device = await openDevice('driver=memory,size=1P', { writable: true });
  expect(device.size).toBe(2 ** 50);
  expect(device.description).toBeUndefined();
  await device.write(2 ** 49, Uint8Array.of(1));
  await using other = await openDevice('driver=memory,size=1P');
  expect((await other.extents(0, 2 ** 50))[0].count).toBe(1);
  expect((await device.extents(0, 2 ** 50))[0].count).toBe(3);
});

it('openDevice checks a description that no compiler has seen', async () => {
  await expect(openDevice({ driver: 'disk' } as never)).rejects.toThrow(TypeError);
  await expect(openDevice({ driver: 'file', path: '/x' } as never)).rejects.toThrow(
    /path is unknown/,
  );
});

it('openDevice opens nothing when the signal has fired', async () => {
  const opening = openDevice('null:', { signal: AbortSignal.abort() });
  await expect(opening).rejects.toMatchObject({ code: 'ERR_ABORTED' });
});

it('openDevice takes a description for what it says, whatever the ending of its file', async () => {
  const filename = join(folder, 'odd.qcow2');
  await createRawFile(filename, 512);
  await expect(openDevice(filename)).rejects.toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  await using raw = await openDevice(filename, { format: 'raw' });
  await using again = await openDevice(raw.description!);
  expect(again.size).toBe(512);
});
