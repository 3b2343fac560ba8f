/** What prune merges, and what it leaves because writing it again would cost more than it frees. */
import fs, { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pointBelow, Repository } from 'lacuna/repository';
import { expect, test, vi } from 'vitest';
import { repositoryOperations } from '#dist/repository/layout/index.js';
import { OneDisk } from '../../support/one-disk.js';
import { change, flipBit, hashOf, KiB, MiB, pointsOf, resize } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

/** A repository of one disk whose first point is large; `day` changes a little and backs it up. */
async function begin() {
  const one = new OneDisk(folder, 20 * MiB, { smallImage: 0 });
  const { disk, path, repository } = one;
  await change(disk, (device) => device.write(0, Buffer.alloc(12 * MiB, 1)));
  await one.backUp();
  const images = () =>
    readdirSync(join(path, 'machines/m/disks/vda')).filter((file) => file.endsWith('.qcow2'));
  const expectPoint = async (number: number, hash: string) => {
    await one.expectPoint(number, hash);
    expect((await repository.verify()).problems).toEqual([]);
  };
  return {
    disk,
    path,
    repository,
    images,
    expectPoint,
    day: (bytes?: number) => one.day({ bytes }),
  };
}

/** A prune that dies before it removes the first point. */
async function pruneAndDie(path: string): Promise<void> {
  const remove = (name: string) => {
    if (name.endsWith('points/1.json')) throw new Error('died');
    repositoryOperations.remove(name);
  };
  const operations = { ...repositoryOperations, remove };
  const dying = Repository.openWith(path, { operations, smallImage: 0 });
  await expect(dying.prune({ keep: { last: 1 } })).rejects.toThrow('died');
}

test('an image that is much larger than what is merged above it is left, and its point is gone all the same', async () => {
  const { disk, repository, day, images, expectPoint } = await begin();
  for (let i = 0; i < 3; i++) await day();
  const [full] = images();
  const dry = await repository.prune({ keep: { last: 1 }, dryRun: true });
  const { machines } = await repository.prune({ keep: { last: 1 } });
  expect(machines[0]).toMatchObject({
    removed: [1, 2, 3],
    merged: [{ point: 4, disk: 'vda', over: null }],
  });
  const [pruned] = dry.machines;
  expect(Math.abs(pruned.freedBytes - machines[0].freedBytes)).toBeLessThan(MiB);
  const [{ number, disks }] = pointsOf(repository, 'm');
  expect(disks[0].file).toMatchObject({ parent: null, below: [{ number: 1, name: full }] });
  expect(images().sort()).toEqual([full, disks[0].file.name].sort());
  await expectPoint(number, hashOf(disk, folder));
});

test('increments go on over it, by the bitmap in the disk', async () => {
  const { disk, repository, day, expectPoint } = await begin();
  await day();
  await repository.prune({ keep: { last: 1 } });
  const { disks, point } = await day();
  expect(disks[0]).toMatchObject({ mode: 'bitmap', parent: 2, movedBytes: 64 * KiB });
  await expectPoint(point.number, hashOf(disk, folder));
});

test('it is merged when what lies above it has become large', async () => {
  const { disk, repository, day, images, expectPoint } = await begin();
  await day();
  await repository.prune({ keep: { last: 1 } });
  expect(images()).toHaveLength(2);
  await day(8 * MiB);
  const { machines } = await repository.prune({ keep: { last: 1 } });
  expect(machines[0].merged).toEqual([{ point: 3, disk: 'vda', over: null }]);
  expect(images()).toHaveLength(1);
  await expectPoint(3, hashOf(disk, folder));
});

test('a prune with nothing to merge writes no image', async () => {
  const { disk, path, repository, day, images, expectPoint } = await begin();
  await day();
  const before = images().map((name) => readFileSync(join(path, 'machines/m/disks/vda', name)));
  const { machines } = await repository.prune({ keep: { last: 1 } });
  expect(machines[0]).toMatchObject({ removed: [1], merged: [] });
  const after = images().map((name) => readFileSync(join(path, 'machines/m/disks/vda', name)));
  expect(after.every((bytes, i) => bytes.equals(before[i]))).toBe(true);
  // The next one finds nothing to do, and reads no digests for it.
  const opening = vi.spyOn(fs, 'openSync');
  try {
    const again = await repository.prune({ keep: { last: 1 } });
    expect(again.machines[0]).toMatchObject({ removed: [], merged: [], freedBytes: 0 });
    const opened = opening.mock.calls.map(([name]) => String(name));
    expect(opened.filter((name) => name.endsWith('.leaves'))).toEqual([]);
  } finally {
    opening.mockRestore();
  }
  await expectPoint(2, hashOf(disk, folder));
});

test('a dry run after a prune that died does not count an image that is left as freed', async () => {
  const { path, repository, day } = await begin();
  await day();
  await pruneAndDie(path);
  expect(pointsOf(repository, 'm')[1].disks[0].file.below).toMatchObject([{ number: 1 }]);
  const keep = { last: 1 };
  const [dry] = (await repository.prune({ keep, dryRun: true })).machines;
  const [real] = (await repository.prune({ keep })).machines;
  expect([dry, real]).toMatchObject([{ removed: [1] }, { removed: [1] }]);
  expect(Math.abs(dry.freedBytes - real.freedBytes)).toBeLessThan(MiB);
});

test('a point that a prune which died was to remove is the parent again where the next one keeps it', async () => {
  const { path, disk, repository, day, expectPoint } = await begin();
  await day();
  await pruneAndDie(path);
  await repository.prune({ keep: { last: 2 } });
  const { file } = pointsOf(repository, 'm')[1].disks[0];
  expect({ parent: file.parent, below: file.below }).toEqual({ parent: 1, below: undefined });
  await expectPoint(2, hashOf(disk, folder));
});

test('a bit that flips in it is damage of the point that has kept it', async () => {
  const { path, repository, day } = await begin();
  await day();
  await repository.prune({ keep: { last: 1 } });
  const [{ disks }] = pointsOf(repository, 'm');
  const kept = join(path, 'machines/m/disks/vda', disks[0].file.below![0].name);
  flipBit(kept, readFileSync(kept).indexOf(Buffer.alloc(64 * KiB, 1)) + 8 * MiB, 0);
  const { problems } = await repository.verify();
  expect(problems[0]).toMatchObject({ point: 2, disk: 'vda', file: kept });
  const target = join(folder, 'never.raw');
  const restoring = repository.restore({ point: 2, disks: [{ name: 'vda', target }] });
  await expect(restoring).rejects.toMatchObject({ code: 'ERR_REPOSITORY_DAMAGED', device: kept });
});

test('what was written over lies below no image that is left', async () => {
  const { disk, repository, day, images, expectPoint } = await begin();
  for (let i = 2; i <= 4; i++) {
    await change(disk, (device) => device.write(0, Buffer.alloc(12 * MiB, i)));
    await repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
  }
  await day();
  const { machines } = await repository.prune({ keep: { last: 1 } });
  expect(machines[0]).toMatchObject({ removed: [1, 2, 3, 4], merged: [{ point: 5, over: null }] });
  expect(images()).toHaveLength(1);
  await expectPoint(5, hashOf(disk, folder));
});

test('zeroes count as what was written over, although they take no space', async () => {
  const { disk, repository, images, expectPoint } = await begin();
  await change(disk, (device) => device.zero(0, 8 * MiB));
  await repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
  await repository.prune({ keep: { last: 1 } });
  expect(images()).toHaveLength(1);
  await expectPoint(2, hashOf(disk, folder));
});

test('zeroes where there was nothing do not count', async () => {
  const { disk, repository, images, expectPoint } = await begin();
  await change(disk, (device) => device.zero(12 * MiB, 8 * MiB));
  const { disks } = await repository.backup({
    machine: 'm',
    disks: [{ name: 'vda', source: disk }],
  });
  expect(disks[0]).toMatchObject({ mode: 'bitmap', dirtyBytes: 8 * MiB });
  await repository.prune({ keep: { last: 1 } });
  expect(images()).toHaveLength(2);
  await expectPoint(2, hashOf(disk, folder));
});

test('what a shorter disk has cut off counts as what was written over', async () => {
  const { disk, repository, images, expectPoint } = await begin();
  await resize(disk, 4 * MiB);
  await repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }] });
  await repository.prune({ keep: { last: 1 } });
  expect(images()).toHaveLength(1);
  await expectPoint(2, hashOf(disk, folder));
});

test('no overlay is to lie over it: nothing would keep it there', async () => {
  const { path, repository, day } = await begin();
  await day();
  await repository.prune({ keep: { last: 1 } });
  const [{ disks }] = pointsOf(repository, 'm');
  const imageAt = (name: string) => join(path, 'machines/m/disks/vda', name);
  expect(pointBelow(imageAt(disks[0].file.name))?.number).toBe(2);
  expect(() => pointBelow(imageAt(disks[0].file.below![0].name))).toThrow(
    expect.objectContaining({ code: 'ERR_POINT_UNKNOWN' }),
  );
});
