/** What else may be in and around the folders of a repository, and what a restore must not write to. */
import fs, { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { repositoryOperations } from '#dist/repository/layout/index.js';
import { OneDisk } from '../../support/one-disk.js';
import { hashOf, hashOfFile, imageOf, KiB, MiB, pointsOf } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

/** A repository with two points of one disk. */
async function begin(): Promise<OneDisk> {
  const machine = new OneDisk(folder, 2 * MiB);
  for (let i = 0; i < 2; i++) await machine.day();
  return machine;
}

test('a file system that is new, and has its lost+found, may become a repository', async () => {
  const path = join(folder, 'mounted');
  mkdirSync(join(path, 'lost+found'), { recursive: true });
  expect(Repository.open(path, { create: true }).machines()).toEqual([]);
  expect(Repository.open(path).machines()).toEqual([]);
});

test('files that somebody has put among the folders are no machines and no disks', async () => {
  const machine = await begin();
  const { path, repository } = machine;
  const notes = ['machines/NOTES', 'machines/m/disks/README', 'machines/m/disks/.hidden'];
  for (const name of notes) writeFileSync(join(path, name), 'mine');
  symlinkSync('nowhere', join(path, 'machines/m/disks/link'));
  expect(repository.machines()).toEqual(['m']);
  expect((await machine.backUp()).point.number).toBe(3);
  expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
  await repository.prune({ keep: { last: 1 } });
  for (const name of notes) expect(readFileSync(join(path, name), 'utf8')).toBe('mine');
});

test.each(['an image of a later point', 'a new name', 'a link from outside'])(
  'a restore does not write into its own repository, to %s',
  async (what) => {
    const { path, repository } = await begin();
    const later = imageOf(repository, pointsOf(repository, 'm')[1], 'vda');
    const link = join(folder, `link-${basename(path)}.qcow2`);
    symlinkSync(later, link);
    const targets: Record<string, string> = {
      'an image of a later point': later,
      'a new name': join(path, 'machines/m/disks/vda/new.raw'),
      'a link from outside': link,
    };
    const before = readFileSync(later);
    const disks = [{ name: 'vda', target: targets[what] }];
    await expect(repository.restore({ point: 1, disks })).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
      message: expect.stringContaining('lies in the repository itself'),
    });
    expect(readFileSync(later).equals(before)).toBe(true);
    expect(fs.existsSync(targets['a new name'])).toBe(false);
    expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
  },
);

test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES'])(
  'a repository in which nothing can be written (%s) is read all the same',
  async (code) => {
    const { disk, path, repository } = await begin();
    const create = () => {
      throw Object.assign(new Error(code), { code, syscall: 'open' });
    };
    const operations = { ...repositoryOperations, create };
    const full = Repository.openWith(path, { operations });
    const target = join(folder, 'restored.raw');
    await full.restore({ point: 'latest', disks: [{ name: 'vda', target }] });
    expect(hashOfFile(target)).toBe(hashOf(disk, folder));
    rmSync(target);
    expect(await full.verify()).toMatchObject({ ok: true });
    expect((await full.diff({ from: 1, to: 2 })).disks[0].changedBytes).toBe(64 * KiB);
    await expect(full.prune({ keep: { last: 1 } })).rejects.toMatchObject({ errno: code });
    expect(pointsOf(repository, 'm')).toHaveLength(2);
  },
);
