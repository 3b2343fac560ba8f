/** What an increment looks at before it begins: its own chain, and not all points and images that there are. */
import fs, { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { describe, expect, test, vi } from 'vitest';
import { Replacement } from '#dist/files/index.js';
import { repositoryOperations, seal, unseal } from '#dist/repository/layout/index.js';
import { OneDisk } from '../../support/one-disk.js';
import { change, flipBit, hashOf, imageOf, MiB, pointsOf } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

/** A machine with two chains: of the points 1 and 2, and of 3 and 4. */
async function begin() {
  const one = new OneDisk(folder, 4 * MiB);
  for (const full of [true, false, true, false]) await one.day({ full });
  const { disk, path, repository } = one;
  const expectPoint = (number: number) => one.expectPoint(number, hashOf(disk, folder));
  const day = (full = false) => one.day({ full });
  return { disk, path, repository, day, expectPoint, machine: join(path, 'machines/m') };
}

/** The files that some work opens, without their folders. */
async function opened(work: () => Promise<unknown>): Promise<string[]> {
  const opening = vi.spyOn(fs, 'openSync');
  try {
    await work();
    return opening.mock.calls.map(([path]) => basename(String(path)));
  } finally {
    opening.mockRestore();
  }
}

test('an increment reads the manifests of its own chain, and opens no image below its own', async () => {
  const { repository, day, expectPoint } = await begin();
  const below = pointsOf(repository, 'm').map((point) =>
    basename(imageOf(repository, point, 'vda')),
  );
  const files = await opened(() => day());
  const manifests = new Set(files.filter((name) => /^\d+\.json$/.test(name)));
  expect([...manifests].sort()).toEqual(['3.json', '4.json']);
  expect(files.filter((name) => below.includes(name))).toEqual([]);
  await expectPoint(5);
  expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
});

test('a plan reads no more than the increment', async () => {
  const { disk, repository } = await begin();
  const disks = [{ name: 'vda', source: disk }];
  const files = await opened(() => repository.plan({ machine: 'm', disks }));
  expect(files.filter((name) => /^[12]\.json$/.test(name))).toEqual([]);
});

test('a manifest of another chain that is damaged is no reason for a full backup', async () => {
  const { repository, day, machine } = await begin();
  flipBit(join(machine, 'points/1.json'), 200, 3);
  expect((await day()).disks[0]).toMatchObject({ mode: 'bitmap', parent: 4 });
  expect((await repository.verify()).problems[0]).toMatchObject({
    message: expect.stringContaining('the manifest of point 1 of m'),
  });
});

describe('all points are looked at', () => {
  test.each([
    ['an image', 'disks/vda/5-0123abcd.qcow2'],
    ['leaves', 'disks/vda/1-0123abcd.leaves'],
    ['an image that was to replace another', 'disks/vda/1-0123abcd.qcow2.new'],
  ])('where a run that died has left %s, which goes', async (_, name) => {
    const { day, machine } = await begin();
    writeFileSync(join(machine, name), 'x');
    expect((await day()).removed).toEqual([join(machine, name)]);
    expect((await day()).removed).toEqual([]);
  });

  test.each(['disks/vda/5-0123abcd.qcow2', 'points/5.json'])(
    'where a run that died was making %s, which goes',
    async (name) => {
      const { day, machine } = await begin();
      const { path } = Replacement.plan(join(machine, name), 'side');
      writeFileSync(path, 'x');
      expect((await day()).removed).toEqual([path]);
    },
  );

  test('where a manifest is missing, and the chain ends with that', async () => {
    const { day, machine } = await begin();
    rmSync(join(machine, 'points/1.json'));
    expect((await day()).disks[0]).toMatchObject({
      mode: 'full',
      reason: expect.stringContaining('point 1 of m is not there'),
    });
  });

  test('where there is a manifest that the list has not, as when it was brought back', async () => {
    const { repository, day, machine } = await begin();
    const [path, away] = [join(machine, 'points/1.json'), join(machine, 'away')];
    renameSync(path, away);
    rmSync(join(machine, 'points.json'));
    await day();
    renameSync(away, path);
    const { removed } = await day();
    // Without its manifest nothing had named them.
    expect(removed).toEqual([]);
    expect((await repository.verify()).problems[0]).toMatchObject({ point: 1 });
  });

  test('where the list was made by an earlier version, and then not again', async () => {
    const { day, machine } = await begin();
    const list = join(machine, 'points.json');
    const { machine: name, points } = unseal(readFileSync(list))!;
    writeFileSync(list, seal({ machine: name, points }));
    expect(await opened(() => day())).toContain('1.json');
    expect(await opened(() => day())).not.toContain('1.json');
  });

  test('where a prune that died has left its list, and not behind one that has ended', async () => {
    const { path, repository, day } = await begin();
    const remove = (name: string) => {
      if (name.endsWith('points/1.json')) throw new Error('died');
      repositoryOperations.remove(name);
    };
    const operations = { ...repositoryOperations, remove };
    const dying = Repository.openWith(path, { operations, smallImage: 0 });
    await expect(dying.prune({ keep: { last: 2 } })).rejects.toThrow('died');
    expect(await opened(() => day())).toContain('1.json');
    await day(true);
    const { machines } = await repository.prune({ keep: { last: 3 } });
    expect(machines[0]).toMatchObject({ removed: [1, 3], merged: [{ point: 4 }] });
    expect(await opened(() => day())).not.toContain('4.json');
    expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
  });

  test('where a prune that died was about to keep an image of a point that is there', async () => {
    const { disk, path, repository, day, machine, expectPoint } = await begin();
    await change(disk, (device) => device.write(MiB, Buffer.alloc(3 * MiB, 9)));
    await day(true);
    const { point } = await day();
    const rename = (from: string, to: string) => {
      if (to.endsWith('points.json')) throw new Error('died');
      repositoryOperations.rename(from, to);
    };
    const operations = { ...repositoryOperations, rename };
    const dying = Repository.openWith(path, { operations, smallImage: 0 });
    await expect(dying.prune({ keep: { last: 1 } })).rejects.toThrow('died');
    const fileOf = () => pointsOf(repository, 'm')[point.number - 1].disks[0].file;
    expect(fileOf()).toMatchObject({ parent: null, below: [{ number: point.number - 1 }] });
    await day();
    expect({ parent: fileOf().parent, below: fileOf().below }).toEqual({
      parent: point.number - 1,
      below: undefined,
    });
    await expectPoint(point.number + 1);
    expect(unseal(readFileSync(join(machine, 'points.json')))).toHaveProperty('files');
  });
});
