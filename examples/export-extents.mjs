/**
 * Writes the data of a disk in a format of its own, a table of extents and then their bytes, and makes a disk
 * of it again.
 *
 *     node examples/export-extents.mjs [SOURCE EXPORT]
 *
 * Without arguments it makes a sparse image to export, in a temporary folder.
 *
 * Each extent is one line of JSON, `{"offset":...,"length":...,"status":"data"}`, followed by that many
 * bytes if it is data. What reads as zero takes a line and no more, whatever its length.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, openDevice, plan, readExtents } from 'lacuna';

const GIB = 2 ** 30;

async function exportDisk(source, path) {
  const made = await plan({ source });
  const { size, dataBytes } = made.totals;
  console.log(`${dataBytes} of ${size} bytes have to be read`);
  const file = await open(path, 'wx');
  await file.write(`${JSON.stringify({ size })}\n`);
  for await (const { offset, length, status, data } of readExtents(source, made)) {
    await file.write(`${JSON.stringify({ offset, length, status })}\n`);
    // The bytes are lent until the next turn of the loop, so it waits until they are written.
    if (data !== undefined) await file.write(data);
  }
  await file.close();
  made.data.free();
  made.zero.free();
}

async function importDisk(path, target) {
  const file = await open(path, 'r');
  const { size } = await readLine(file);
  const image = await open(target, 'wx');
  await image.truncate(size);
  await image.close();
  const device = await openDevice(target, { writable: true });
  for (let extent = await readLine(file); extent !== null; extent = await readLine(file)) {
    if (extent.status === 'zero') continue;
    const bytes = Buffer.alloc(extent.length);
    await file.read(bytes, 0, bytes.length, null);
    await device.write(extent.offset, bytes);
  }
  await device.flush();
  await device.close();
  await file.close();
}

async function readLine(file) {
  const byte = Buffer.alloc(1);
  let line = '';
  while ((await file.read(byte, 0, 1, null)).bytesRead === 1) {
    if (byte[0] === 10) return JSON.parse(line);
    line += byte.toString('latin1');
  }
  return null;
}

async function makeSparseImage(path) {
  const file = await open(path, 'wx');
  await file.truncate(100 * GIB);
  for (const at of [0, 42 * GIB, 99 * GIB])
    await file.write(Buffer.alloc(65536, 'data'), 0, 65536, at);
  await file.close();
}

const [source, path] = process.argv.slice(2);
if (source !== undefined && path !== undefined) {
  await exportDisk(source, path);
} else {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  try {
    const [disk, exported, again] = ['disk.raw', 'disk.extents', 'again.raw'].map((name) =>
      join(folder, name),
    );
    await makeSparseImage(disk);
    await exportDisk(disk, exported);
    await importDisk(exported, again);
    const { equal } = await compare({ a: disk, b: again });
    console.log(equal ? 'source and target are equal' : 'source and target differ');
  } finally {
    await rm(folder, { recursive: true });
  }
}
