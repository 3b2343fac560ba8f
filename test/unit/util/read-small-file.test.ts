import {
  closeSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readSmallFile } from '#dist/util/index.js';
import { makeFifo } from '../../support/fifo.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = realpathSync(temporaryFolder());

function read(path: string): Promise<Buffer> {
  return readSmallFile(path, { code: 'ERR_DEVICE_OPEN', what: 'the file of --option,' });
}

function fifo(name: string): string {
  const path = join(folder, name);
  makeFifo(path);
  return path;
}

/** How often this process has it open. */
function opened(path: string): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return links.filter((link) => link === path).length;
}

test('a file is read whole', async () => {
  const path = join(folder, 'file');
  writeFileSync(path, 'some text');
  expect(`${await read(path)}`).toBe('some text');
});

test('a pipe is read until its writers are gone, however slow they are', async () => {
  const path = fifo('slow');
  const writer = openSync(path, 'r+');
  writeSync(writer, 'first ');
  const reading = read(path);
  while (opened(path) < 2) await new Promise((resolve) => setImmediate(resolve));
  writeSync(writer, 'second');
  closeSync(writer);
  expect(`${await reading}`).toBe('first second');
});

test('a pipe that nobody writes to is refused and not waited for', async () => {
  const path = fifo('lonely');
  await expect(read(path)).rejects.toMatchObject({
    code: 'ERR_DEVICE_OPEN',
    message: `Cannot read the file of --option, ${path}: it is a pipe (FIFO) that nobody writes to: start the writer first, or name a file`,
  });
});

test('what has no end is refused', async () => {
  const path = join(folder, 'long');
  writeFileSync(path, '');
  truncateSync(path, 1024 * 1024 + 1);
  await expect(read(path)).rejects.toThrow('it is longer than 1 MiB');
  await expect(read('/dev/zero')).rejects.toThrow('it is a device: name a file');
});

test('what the system refuses is told with its name and what to do', async () => {
  const path = join(folder, 'missing');
  await expect(read(path)).rejects.toMatchObject({
    errno: 'ENOENT',
    message: `Cannot read the file of --option, ${path} (ENOENT): there is no such file: check the path`,
  });
});
