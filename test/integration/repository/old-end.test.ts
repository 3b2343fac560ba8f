/** A disk that grows shows what it held behind an earlier end: QEMU keeps the rest of a cluster, and marks nothing of it as dirty. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { change, hashOf, hashOfFile, imageOf, KiB, MiB } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

test.each([{ clusters: '64k' }, { clusters: '2M' }])(
  'an increment has what a disk shows again behind its old end, with clusters of $clusters',
  async ({ clusters }) => {
    const disk = join(folder, `${clusters}.qcow2`);
    const qemu = (...args: string[]) => execFileSync('qemu-img', args);
    const options = `cluster_size=${clusters}`;
    qemu('create', '-q', '-f', 'qcow2', '-o', options, disk, `${4 * MiB}`);
    await change(disk, (device) => device.write(0, Buffer.alloc(4 * MiB, 5)));
    const repository = Repository.open(join(folder, clusters), { create: true });
    const backup = () =>
      repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
    await backup();
    qemu('resize', '-q', '-f', 'qcow2', '--shrink', disk, `${MiB + 6 * KiB}`);
    await backup();
    qemu('resize', '-q', '-f', 'qcow2', disk, `${3 * MiB}`);
    const { point, disks } = await backup();
    expect(disks[0].mode).toBe('bitmap');
    const target = join(folder, 'restored.raw');
    await repository.restore({ point: 'latest', disks: [{ name: 'vda', target }] });
    expect(hashOfFile(target)).toBe(hashOf(disk, folder));
    expect(hashOf(imageOf(repository, point, 'vda'), folder)).toBe(hashOf(disk, folder));
  },
);
