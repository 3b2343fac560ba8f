import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { createRawFile, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

it('opens a null device of the largest size, which reads as zero', async () => {
  await using device = await openDevice('null:');
  expect(device.size).toBe(2 ** 53 - 512);
  expect(device.capabilities).toMatchObject({ write: false, knownZero: true });
  const [list] = await device.extents(0, device.size);
  expect(list.count).toBe(1);
});

it('makes new memory at each opening, and gives no description of it', async () => {
  await using device = await openDevice('driver=memory,size=1P', { writable: true });
  expect(device.size).toBe(2 ** 50);
  expect(device.description).toBeUndefined();
  await device.write(2 ** 49, Uint8Array.of(1));
  await using other = await openDevice('driver=memory,size=1P');
  expect((await other.extents(0, 2 ** 50))[0].count).toBe(1);
  expect((await device.extents(0, 2 ** 50))[0].count).toBe(3);
});

it('checks a description that no compiler has seen', async () => {
  await expect(openDevice({ driver: 'disk' } as never)).rejects.toThrow(TypeError);
  await expect(openDevice({ driver: 'file', path: '/x' } as never)).rejects.toThrow(
    /path is unknown/,
  );
});

it('does not open when the signal has fired', async () => {
  const opening = openDevice('null:', { signal: AbortSignal.abort() });
  await expect(opening).rejects.toMatchObject({ code: 'ERR_ABORTED' });
});

it('takes a description for what it says, whatever the ending of its file', async () => {
  const filename = join(folder, 'odd.qcow2');
  await createRawFile(filename, 512);
  await expect(openDevice(filename)).rejects.toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  await using raw = await openDevice(filename, { format: 'raw' });
  await using again = await openDevice(raw.description!);
  expect(again.size).toBe(512);
});

it('opens the same file again in a worker, foreign calls included', async () => {
  const filename = join(folder, 'shared.raw');
  await createRawFile(filename, 1024 * 1024);
  await using device = await openDevice(filename, { writable: true });
  await device.write(65_536, new Uint8Array(4096).fill(7));
  const found = await inWorker(device.description!);
  expect(found).toEqual({ exactStatus: true, count: 3, byte: 7 });
});

function inWorker(description: DeviceDescription): Promise<unknown> {
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(${JSON.stringify(import.meta.resolve('#dist/block/index.js'))}).then(async ({ openDevice }) => {
      const device = await openDevice(workerData);
      const target = new Uint8Array(1);
      await device.read(65_536, target);
      const [list] = await device.extents(0, device.size);
      const { exactStatus } = device.capabilities;
      parentPort.postMessage({ exactStatus, count: list.count, byte: target[0] });
      await device.close();
    });`;
  return new Promise((resolve, reject) => {
    const worker = new Worker(script, { eval: true, workerData: description });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}
