/** Files that are opened by another thread, or another user. */
import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { createRawFile, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

it('a file that the user may not write is refused with what the system says', async () => {
  const path = join(folder, 'readable.raw');
  await createRawFile(path, 512);
  chmodSync(path, 0o400);
  const script = `
    import { openDevice } from ${JSON.stringify(import.meta.resolve('#dist/block/index.js'))};
    if (process.getuid() === 0) process.setuid(65534);
    const error = await openDevice(${JSON.stringify(path)}, { writable: true }).catch((error) => error);
    console.log(error.code, error.errno);`;
  chmodSync(folder, 0o755);
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script]);
  expect(output.toString()).toBe('ERR_DEVICE_OPEN EACCES\n');
});

it('a device opens again in a worker thread by its description, foreign calls included', async () => {
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
