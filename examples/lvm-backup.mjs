/**
 * Backs up an LVM volume while it is used: a snapshot holds still what is read, and goes when it is read.
 *
 *     node examples/lvm-backup.mjs VG/LV REPOSITORY
 *
 * LVM does not tell what has changed, so an increment reads all that is allocated and stores what has other digests. The
 * snapshot is as if the power had been cut at that moment; freeze the file system on it before (fsfreeze), where that matters.
 *
 * Without arguments it backs up a file in place of a volume, of which a copy stands for the snapshot, and needs no LVM.
 */
import { execFile } from 'node:child_process';
import { constants, copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { compare, createRawFile, openDevice } from 'lacuna';
import { Repository } from 'lacuna/repository';

const run = promisify(execFile);

/** What is written meanwhile goes into the snapshot: a share of the volume that it has room for. */
const ROOM = '20%ORIGIN';

/**
 * Calls `use` with a path that shows the disk as it is now, for as long as that takes, and with what throws where it has not
 * shown it all the time.
 */
const lvm = {
  async withSnapshot(volume, use) {
    const [group, name] = volume.split('/');
    const snapshot = `${name}-lacuna-${process.pid}`;
    await run('lvcreate', ['--snapshot', '--extents', ROOM, '--name', snapshot, volume]);
    try {
      return await use(`/dev/${group}/${snapshot}`, async () => {
        // A snapshot without room left shows nothing any more, and what was read last may be wrong.
        const lvs = ['--noheadings', '--options', 'lv_snapshot_invalid', `${group}/${snapshot}`];
        const { stdout } = await run('lvs', lvs);
        if (stdout.trim() !== '') throw new Error(`the snapshot of ${volume} ran full`);
      });
    } finally {
      await run('lvremove', ['--yes', `${group}/${snapshot}`]);
    }
  },
};

const files = {
  async withSnapshot(path, use) {
    const snapshot = `${path}.snapshot`;
    // Where the file system can, this takes no time and no room.
    await copyFile(path, snapshot, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    try {
      return await use(snapshot, () => {});
    } finally {
      await rm(snapshot);
    }
  },
};

async function backup({ withSnapshot }, volume, folder) {
  const repository = Repository.open(folder, { create: true });
  const machine = volume.split('/').at(-1);
  return await withSnapshot(volume, (source, beforeCommit) => {
    const disks = [{ name: 'disk', source }];
    // What throws there leaves no point.
    return repository.backup({ machine, disks, compress: 'zstd', beforeCommit });
  });
}

function describe({ point, disks }) {
  const [{ mode, movedBytes }] = disks;
  return `point ${point.number}: ${mode}, ${movedBytes} bytes stored`;
}

const [volume, folder] = process.argv.slice(2);
if (volume !== undefined && folder !== undefined) {
  console.log(describe(await backup(lvm, volume, folder)));
} else {
  const place = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  const [disk, repository, again] = ['web', 'backup', 'again.raw'].map((name) => join(place, name));
  try {
    await createRawFile(disk, 64 * 2 ** 20);
    for (const text of ['first', 'second']) {
      const device = await openDevice(disk, { writable: true });
      await device.write(text === 'first' ? 0 : 10 * 2 ** 20, Buffer.alloc(2 ** 20, text));
      await device.close();
      console.log(describe(await backup(files, disk, repository)));
    }
    const restored = { point: 'web/latest', disks: [{ name: 'disk', target: again }] };
    await Repository.open(repository).restore(restored);
    const { equal } = await compare({ a: disk, b: again });
    console.log(equal ? 'source and target are equal' : 'source and target differ');
  } finally {
    await rm(place, { recursive: true });
  }
}
