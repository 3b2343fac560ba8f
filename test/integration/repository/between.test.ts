/** What fails, or what others do, between two steps of an operation. */
import { execFileSync } from 'node:child_process';
import fs, { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { expect, test, vi } from 'vitest';
import { type RepositoryOperations, repositoryOperations } from '#dist/repository/layout/index.js';
import { change, KiB, MiB, makeImage, pointsOf } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const library = new URL('../../../dist/repository/index.js', import.meta.url).href;
let made = 0;

/** A repository of one disk; `day` changes a little and backs it up. */
async function begin(points: number) {
  const name = `${++made}`;
  const disk = join(folder, `${name}.qcow2`);
  makeImage(disk, 2 * MiB);
  await change(disk, (device) => device.write(0, Buffer.alloc(MiB, 1)));
  const path = join(folder, `repository-${name}`);
  let days = 0;
  const day = async (repository: Repository) => {
    days++;
    await change(disk, (device) => device.write(days * 64 * KiB, Buffer.alloc(64 * KiB, days)));
    return await repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
  };
  const repository = Repository.open(path, { create: true });
  for (let i = 0; i < points; i++) await day(repository);
  const withOperations = (operations: Partial<RepositoryOperations>) =>
    Repository.openWith(path, {
      operations: { ...repositoryOperations, ...operations },
      smallImage: 0,
    });
  return { path, repository, day, withOperations };
}

test('a backup whose point may not be durable leaves no point behind when it fails', async () => {
  const { repository, day, withOperations } = await begin(1);
  const failing = withOperations({
    syncFolder: (path) => {
      if (path.endsWith('points/2.json')) {
        throw Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'fsync' });
      }
      repositoryOperations.syncFolder(path);
    },
  });
  await expect(day(failing)).rejects.toMatchObject({ code: 'ERR_REPOSITORY_FILE', errno: 'EIO' });
  expect(pointsOf(repository, 'm').map(({ number }) => number)).toEqual([1]);
  expect(await repository.verify()).toMatchObject({ problems: [], unnamed: [] });
});

test('a point that is taken back, since its parent went meanwhile, is gone durably', async () => {
  const { path, day, withOperations } = await begin(1);
  const [parent, own] = [1, 2].map((number) => join(path, `machines/m/points/${number}.json`));
  const steps: string[] = [];
  const watched = withOperations({
    link: (from, to) => {
      repositoryOperations.link(from, to);
      if (to === own) rmSync(parent);
    },
    remove: (name) => {
      repositoryOperations.remove(name);
      if (name === own) steps.push('removed');
    },
    syncFolder: (name) => {
      repositoryOperations.syncFolder(name);
      if (name === own) steps.push('synced');
    },
  });
  await expect(day(watched)).rejects.toMatchObject({ code: 'ERR_REPOSITORY_CHANGED' });
  expect(steps).toEqual(['synced', 'removed', 'synced']);
});

test('a prune between the choice of the points of a diff and its lock is no damage', async () => {
  const { path, repository, withOperations } = await begin(4);
  let isPruned = false;
  const racing = withOperations({
    link: (from, to) => {
      if (!isPruned) {
        isPruned = true;
        const prune = `const { Repository } = await import(${JSON.stringify(library)});
          await Repository.open(${JSON.stringify(path)}).prune({ keep: { last: 2 } });`;
        execFileSync(process.execPath, ['--input-type=module', '--eval', prune]);
      }
      repositoryOperations.link(from, to);
    },
  });
  const diff = await racing.diff({ from: 3, to: 4 });
  expect(isPruned).toBe(true);
  expect(diff).toEqual(await repository.diff({ from: 3, to: 4 }));
});

test('a prune between two looks at the list of points is no damage', async () => {
  const { path, repository } = await begin(3);
  const manifest = join(path, 'machines/m/points/1.json');
  const prune = `const { Repository } = await import(${JSON.stringify(library)});
    await Repository.open(${JSON.stringify(path)}).prune({ keep: { last: 2 } });`;
  // As if the folder had been read before the first backup, and the list behind it.
  const { existsSync, readdirSync } = fs;
  const reading = vi.spyOn(fs, 'readdirSync').mockImplementation(((name: string, ...more: []) => {
    const names = readdirSync(name, ...more);
    return names.filter((one) => !name.endsWith('/points') || one !== '1.json');
  }) as typeof fs.readdirSync);
  let isPruned = false;
  const looking = vi.spyOn(fs, 'existsSync').mockImplementation((name) => {
    if (name === manifest && !isPruned) {
      isPruned = true;
      execFileSync(process.execPath, ['--input-type=module', '--eval', prune]);
    }
    return existsSync(name);
  });
  try {
    const [{ points, problems }] = repository.points('m');
    expect({ isPruned, problems }).toEqual({ isPruned: true, problems: [] });
    expect(points.map(({ number }) => number)).toEqual([2, 3]);
  } finally {
    reading.mockRestore();
    looking.mockRestore();
  }
});

test('a prune that died, and damage since then, keep nobody from a new full backup', async () => {
  const { path, repository, day, withOperations } = await begin(2);
  const [first] = pointsOf(repository, 'm')[0].disks;
  const dying = withOperations({
    remove: (name) => {
      if (name.endsWith('points/1.json')) throw new Error('died');
      repositoryOperations.remove(name);
    },
  });
  await expect(dying.prune({ keep: { last: 1 } })).rejects.toThrow('died');
  expect(pointsOf(repository, 'm').at(-1)!.disks[0].file.below).toMatchObject([{ number: 1 }]);
  rmSync(join(path, 'machines/m/disks/vda', first.file.name));
  const { disks } = await day(repository);
  expect(disks[0]).toMatchObject({ mode: 'full', reason: expect.stringContaining('is not there') });
});
