/** The digest of an image file: what was hashed when it was written is not read again, and comes out the same. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digest } from 'lacuna';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { change, imageOf, KiB, MiB, makeImage } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

/** Backs up a disk, and tells of what was stored whether its digest is that of its bytes, and how many of them were read for it. */
async function backUp(repository: Repository, source: string, options: object = {}) {
  const disks = [{ name: 'vda', source }];
  const job = repository.backup({ machine: 'm', disks, bitmaps: false, ...options });
  const { point } = await job;
  const [{ file }] = point.disks;
  const path = imageOf(repository, point, 'vda');
  const found = await digest({ driver: 'file', filename: path });
  expect({ path, digest: file.digest }).toEqual({ path, digest: found.digest });
  return file;
}

test.each(['raw', 'qcow2'])(
  'the digest of each file is that of its bytes, whatever a %s disk holds and wherever it ends',
  async (format) => {
    const disk = join(folder, `disk.${format}`);
    const size = format === 'raw' ? 9 * MiB + 1077 : 9 * MiB + 3 * 512;
    if (format === 'raw') writeFileSync(disk, Buffer.alloc(size));
    else makeImage(disk, size);
    const repository = Repository.open(join(folder, `of-${format}`), { create: true });
    await change(disk, async (device) => {
      await device.write(0, Buffer.alloc(3 * MiB, 1));
      await device.write(size - 700, Buffer.alloc(700, 2));
      // Data of which a block is zero.
      await device.write(5 * MiB, Buffer.alloc(64 * KiB));
    });
    await backUp(repository, disk);
    await change(disk, async (device) => {
      await device.write(MiB, Buffer.alloc(100 * KiB, 3));
      await device.zero(2 * MiB, 128 * KiB);
      await device.write(size - 100, Buffer.alloc(100, 4));
      await device.write(7 * MiB + 5, Buffer.alloc(70 * KiB, 5));
    });
    await backUp(repository, disk);
    await change(disk, (device) => device.write(0, Buffer.alloc(MiB, 6)));
    await backUp(repository, disk, { compress: 'deflate' });
    await backUp(repository, disk, { full: true, compress: 'zstd' });
    await backUp(repository, disk, { full: true });
    await repository.prune({ keep: { last: 1 } });
    expect(await repository.verify()).toMatchObject({ ok: true });
  },
);

test('of an image of much data little more than its tables is read to hash it', async () => {
  const disk = join(folder, 'much.qcow2');
  makeImage(disk, 64 * MiB);
  await change(disk, (device) => device.write(0, Buffer.alloc(64 * MiB, 1)));
  const repository = Repository.open(join(folder, 'much'), { create: true });
  const job = repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
  const done = new Map<string, number>();
  job.on('progress', ({ step, doneBytes, totalBytes }) => {
    done.set(step, Math.max(done.get(step) ?? 0, doneBytes, totalBytes));
  });
  const { disks } = await job;
  expect(disks[0].movedBytes).toBe(64 * MiB);
  const last = Math.max(...done.values());
  expect(last).toBeGreaterThanOrEqual(64 * MiB);
  expect(last).toBeLessThan(66 * MiB);
});
