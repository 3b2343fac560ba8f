import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { lastingNameOf } from '#dist/block/drivers/file/block-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const top = temporaryFolder();
let count = 0;

/** What the kernel would tell of a disk, and of its first partition. */
function sysfs(files: Record<string, string>) {
  const folder = join(top, `sysfs-${count++}`);
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, 'disk', name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${text}\n`);
  }
  symlinkSync('disk', join(folder, '8:16'));
  symlinkSync('disk/sdb1', join(folder, '8:17'));
  return { disk: lastingNameOf(0x810, folder), part: lastingNameOf(0x811, folder) };
}

const PART = { 'sdb1/partition': '1', 'sdb1/start': '2048' };

it('a disk is known by a name that it keeps, and a partition by that of its disk', () => {
  const named = { serial: 'S1', 'device/wwid': 'naa.5000', diskseq: '7', ...PART };
  expect(sysfs(named)).toEqual({
    disk: 'naa.5000',
    part: 'naa.5000, partition 1 at 2048',
  });
  expect(sysfs({ 'dm/uuid': 'LVM-abc', diskseq: '7' }).disk).toBe('LVM-abc');
});

it('a loop device is known by the file behind it', () => {
  const file = join(top, 'disk.raw');
  writeFileSync(file, '');
  const loop = { 'loop/backing_file': file, 'loop/offset': '512', diskseq: '7' };
  const { disk } = sysfs(loop);
  expect(disk).toMatch(/disk.raw \(inode \d+\) from 512$/);
  writeFileSync(`${file}.other`, '');
  expect(sysfs({ ...loop, 'loop/backing_file': `${file}.other` }).disk).not.toBe(disk);
});

it('a disk without a name is the same only until the machine starts anew', () => {
  const { disk, part } = sysfs({ serial: '', diskseq: '7', ...PART });
  expect(disk).toMatch(/^8:16, number 7 since start [0-9a-f-]{36}$/);
  expect(part).toMatch(/partition 1 at 2048$/);
  expect(sysfs({ diskseq: '8' }).disk).not.toBe(disk);
});
