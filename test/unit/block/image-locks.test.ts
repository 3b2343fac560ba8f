import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { createRawFile } from 'lacuna';
import { expect, it } from 'vitest';
import type { SystemCalls } from '#dist/block/drivers/file/ffi.js';
import { lockImage } from '#dist/block/drivers/file/image-locks.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

it('an opening that is refused holds no lock any more when it looks for the holders', async () => {
  const filename = join(folder, 'disk.raw');
  await createRawFile(filename, 512);
  const held = new Set<number>();
  const calls = {
    lockByte: (_fd: number, byte: number) => Number(held.add(byte) === undefined),
    unlockByte: (_fd: number, byte: number) => Number(!held.delete(byte)),
    // Somebody writes.
    isByteLocked: (_fd: number, byte: number) => Number(byte === 101),
  } as Partial<SystemCalls> as SystemCalls;
  const fd = openSync(filename, 'r');
  try {
    const locking = lockImage({ fd, filename, access: 'read', calls });
    expect(held).toEqual(new Set());
    await expect(locking).rejects.toMatchObject({ code: 'ERR_DEVICE_LOCKED' });
    expect(held).toEqual(new Set());
  } finally {
    closeSync(fd);
  }
});
