/**
 * Keeps a copy of a disk up to date: whoever writes to the disk notes it in a bitmap, and the next copy
 * moves only that.
 *
 *     node examples/track-writes.mjs
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';

const GIB = 2 ** 30;

const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
const source = join(folder, 'disk.raw');
const target = join(folder, 'copy.raw');

try {
  const file = await open(source, 'wx');
  await file.truncate(10 * GIB);
  await file.close();

  const disk = await openDevice(source, { writable: true });
  await disk.write(1 * GIB, Buffer.alloc(1024 * 1024, 'first'));
  await disk.write(7 * GIB, Buffer.alloc(1024 * 1024, 'first'));
  await disk.flush();
  // The open disk itself: nobody else may open it while it is written.
  const full = await copy({ source: disk, target });
  console.log(`full copy: moved ${full.movedBytes} bytes`);

  // From here on, every write is noted. A bit stands for 64 KiB of the disk.
  const dirty = new Bitmap({ size: disk.size, granularity: 64 * 1024 });
  await disk.write(1 * GIB, Buffer.alloc(4096, 'second'));
  dirty.set(1 * GIB, 4096);
  await disk.zero(7 * GIB, 1024 * 1024);
  dirty.set(7 * GIB, 1024 * 1024);
  await disk.flush();
  await disk.close();

  const increment = await copy({ source, target, bitmap: dirty });
  console.log(`increment: moved ${increment.movedBytes}, zeroed ${increment.zeroedBytes} bytes`);
  dirty.free();

  const { equal } = await compare({ a: source, b: target });
  console.log(equal ? 'source and target are equal' : 'source and target differ');
} finally {
  await rm(folder, { recursive: true });
}
