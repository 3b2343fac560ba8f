/** Images in which two tables are said to lie at one place: who gives up one of them would free what the other one needs. */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  amendQcow2,
  applySnapshot,
  checkQcow2,
  commit,
  createQcow2,
  createSnapshot,
  deleteSnapshot,
  openBitmaps,
  openDevice,
  resizeImage,
} from 'lacuna';
import { beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../support/peers.js';
import { qemuBytes, qemuIo } from '../../support/qemu-images.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const IMAGE = 'disk.qcow2';
const shared = {
  code: 'ERR_QCOW2_CORRUPT',
  message: expect.stringContaining('inside another one'),
};

workInNewFolders();

/** An image with snapshots `a` and `b`, and what lies where. */
async function imageWithSnapshots() {
  await createQcow2(IMAGE, { size: 4 * MIB });
  for (const name of ['a', 'b']) {
    await qemuIo(IMAGE, ['write -P 1 0 1M']);
    await run('qemu-img', ['snapshot', '-c', name, IMAGE]);
  }
  const bytes = readFileSync(IMAGE);
  const first = Number(bytes.readBigUInt64BE(64));
  const length = 40 + bytes.readUInt32BE(first + 36) + bytes.readUInt16BE(first + 12) + 1;
  return { bytes, first, second: first + Math.ceil(length / 8) * 8 };
}

/** Everything that gives clusters back, or might. */
const CHANGES: [string, () => Promise<unknown>][] = [
  ['a snapshot is deleted', () => deleteSnapshot(IMAGE, 'b')],
  ['a snapshot is applied', () => applySnapshot(IMAGE, 'a')],
  ['a snapshot is taken', () => createSnapshot(IMAGE, 'c')],
  ['the disk becomes larger', () => resizeImage(IMAGE, 8 * 1024 * MIB)],
  ['the disk becomes smaller', () => resizeImage(IMAGE, MIB, { shrink: true })],
  ['its version changes', () => amendQcow2(IMAGE, { version: 2 })],
  ['its disk is written', async () => (await openDevice(IMAGE, { writable: true })).close()],
  ['its bitmaps are changed', () => openBitmaps(IMAGE, { writable: true })],
  ['an overlay is committed to it', () => commit({ top: 'top.qcow2' })],
];

describe('two snapshots that name one L1 table', () => {
  let before: Buffer;
  beforeEach(async () => {
    const { bytes, first, second } = await imageWithSnapshots();
    bytes.copy(bytes, second, first, first + 12);
    writeFileSync(IMAGE, bytes);
    before = readFileSync(IMAGE);
    const backing = { filename: IMAGE, format: 'qcow2' };
    await createQcow2('top.qcow2', { size: 4 * MIB, backing });
    await qemuIo('top.qcow2', ['write -P 2 0 64k']);
  });

  test.each(CHANGES)('are found before %s', async (_what, change) => {
    await expect(change()).rejects.toMatchObject(shared);
    expect(readFileSync(IMAGE).equals(before)).toBe(true);
  });

  test('are not mended by a repair, which cannot know whose it is', async () => {
    await expect(checkQcow2(IMAGE, { repair: 'all' })).rejects.toMatchObject(shared);
    expect(readFileSync(IMAGE).equals(before)).toBe(true);
  });
});

test('an L1 table that the disk and a snapshot share is not given up when the disk gets another one', async () => {
  const { bytes, first } = await imageWithSnapshots();
  bytes.copy(bytes, 40, first, first + 8);
  writeFileSync(IMAGE, bytes);
  const before = readFileSync(IMAGE);
  await expect(resizeImage(IMAGE, 8 * 1024 * MIB)).rejects.toMatchObject(shared);
  await expect(applySnapshot(IMAGE, 'b')).rejects.toMatchObject(shared);
  expect(readFileSync(IMAGE).equals(before)).toBe(true);
});

test('the bitmap directory is no place for a snapshot', async () => {
  await createQcow2(IMAGE, { size: 4 * MIB });
  await run('qemu-img', ['bitmap', '--add', IMAGE, 'b']);
  await run('qemu-img', ['snapshot', '-c', 'a', IMAGE]);
  const bytes = readFileSync(IMAGE);
  const extension = bytes.indexOf(Buffer.from('2385287500000018', 'hex'));
  bytes.copy(bytes, Number(bytes.readBigUInt64BE(64)), extension + 24, extension + 32);
  writeFileSync(IMAGE, bytes);
  await expect(deleteSnapshot(IMAGE, 'a')).rejects.toMatchObject(shared);
  expect(readFileSync(IMAGE).equals(bytes)).toBe(true);
});

test('a snapshot of an empty disk has no table, and what stands for its place belongs to others', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', IMAGE, '0']);
  await run('qemu-img', ['snapshot', '-c', 'empty', IMAGE]);
  await run('qemu-img', ['resize', '-q', IMAGE, '1M']);
  await qemuIo(IMAGE, ['write -P 7 0 1M']);
  const [{ offset }] = JSON.parse(await run('qemu-img', ['map', '--output=json', IMAGE]));
  const bytes = readFileSync(IMAGE);
  bytes.writeBigUInt64BE(BigInt(offset), Number(bytes.readBigUInt64BE(64)));
  writeFileSync(IMAGE, bytes);
  await deleteSnapshot(IMAGE, 'empty');
  await run('qemu-img', ['check', '-q', IMAGE]);
  expect((await qemuBytes(IMAGE)).equals(Buffer.alloc(MIB, 7))).toBe(true);
});
