/** Bits that flip, and files that go, move or change places: verify tells the point and the place, restore refuses. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { LacunaError } from 'lacuna/errors';
import { type Problem, Repository } from 'lacuna/repository';
import { beforeAll, describe, expect, test } from 'vitest';
import { seal, unseal } from '#dist/repository/layout/index.js';
import { Random } from '#dist/testing/index.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import {
  change,
  flipBit,
  hashOf,
  hashOfFile,
  KiB,
  MiB,
  makeImage,
  pointsOf,
} from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

/** Bits that are flipped. */
const FLIPS = runsOr(100, 1000);

const folder = temporaryFolder();
const ORIGINAL = join(folder, 'original');
/** By the number of a point, what the disk was. */
const hashes = new Map<number, string>();

async function damagedCopy(): Promise<string> {
  const copy = join(folder, 'damaged');
  rmSync(copy, { recursive: true, force: true });
  cpSync(ORIGINAL, copy, { recursive: true });
  return copy;
}

function filesOf(repository: string): string[] {
  return readdirSync(repository, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(repository, name)).isFile())
    .sort();
}

/** Which points a repository lists, and what each restores to; the code of the error where it refuses. */
async function restored(path: string, numbers: Iterable<number>): Promise<Map<number, string>> {
  const results = new Map<number, string>();
  for (const number of numbers) {
    const target = join(folder, `restored-${number}.raw`);
    rmSync(target, { force: true });
    try {
      const repository = Repository.open(path);
      await repository.restore({ point: number, disks: [{ name: 'vda', target }] });
      results.set(number, hashOfFile(target));
    } catch (error) {
      expect(error).toBeInstanceOf(LacunaError);
      // Nothing claims to be complete.
      expect(existsSync(target)).toBe(false);
      results.set(number, (error as LacunaError).code);
    }
    for (const name of readdirSync(folder)) {
      if (name.includes('.partial-')) rmSync(join(folder, name));
    }
  }
  return results;
}

async function problemsOf(path: string): Promise<readonly Problem[]> {
  return (await Repository.open(path).verify()).problems;
}

beforeAll(async () => {
  const disk = join(folder, 'vda.qcow2');
  makeImage(disk, 20 * MiB);
  const repository = Repository.open(ORIGINAL, { create: true });
  const random = new Random(firstSeed());
  for (let number = 1; number <= 4; number++) {
    await change(disk, async (device) => {
      await device.write(number * MiB, random.bytes(100 * KiB));
      await device.write(random.below(19) * MiB, random.bytes(3 * KiB));
      if (number > 2) await device.zero(2 * MiB, 64 * KiB);
    });
    const compress = number === 3 ? ({ compress: 'deflate' } as const) : {};
    await repository.backup({ machine: 'm', disks: [{ name: 'vda', source: disk }], ...compress });
    hashes.set(number, hashOf(disk, folder));
  }
  expect((await repository.verify()).ok).toBe(true);
});

/** The points for which a file is of use, as far as its name tells: one point, and the newest. */
function usersOf(file: string): number[] {
  const [, number] = /(?:points\/|vda\/)(\d+)[.-]/.exec(file) ?? [];
  return [...new Set([Number(number ?? 4), 4])];
}

test(`any bit that flips is found by verify, and no restore gives other bytes for it (${FLIPS} bits)`, async () => {
  const random = new Random(firstSeed());
  const copy = await damagedCopy();
  const files = filesOf(copy);
  let refused = 0;
  for (let flip = 0; flip < FLIPS; flip++) {
    const file = random.pick(files);
    const path = join(copy, file);
    const place = [random.below(statSync(path).size), random.below(8)] as const;
    const where = `${file}, byte ${place[0]}`;
    flipBit(path, ...place);
    try {
      const texts = await messagesOf(copy);
      const [number] = usersOf(file);
      const isOfPoint = /(points|vda)\//.test(file);
      const named = texts.filter(
        (text) => !isOfPoint || text.toLowerCase().includes(`point ${number} of m`),
      );
      expect({ where, texts, named: named.some((text) => text.includes(basename(file))) }).toEqual({
        where,
        texts,
        named: true,
      });
      for (const [point, result] of await restored(copy, usersOf(file))) {
        // Some bits are of no use to a restore: padding, counts of clusters, what a younger image covers.
        if (result === hashes.get(point)) continue;
        refused++;
        expect({ where, point, result }).toEqual({
          where,
          point,
          result: 'ERR_REPOSITORY_DAMAGED',
        });
      }
    } finally {
      flipBit(path, ...place);
    }
  }
  expect(await problemsOf(copy)).toEqual([]);
  expect(refused).toBeGreaterThan(0);
});

/** What verify tells of a repository, or why it cannot be opened. */
async function messagesOf(path: string): Promise<string[]> {
  try {
    return (await problemsOf(path)).map(({ message }) => message);
  } catch (error) {
    return [(error as LacunaError).message];
  }
}

describe('a file that is', () => {
  const disks = (copy: string) => join(copy, 'machines/m/disks/vda');
  const points = (copy: string) => join(copy, 'machines/m/points');
  const fileOf = (copy: string, number: number, ending: string) =>
    join(
      disks(copy),
      readdirSync(disks(copy)).find(
        (name) => name.startsWith(`${number}-`) && name.endsWith(ending),
      )!,
    );

  /** Points that refuse, and points that give other bytes than they should. */
  async function outcome(copy: string) {
    const results = [...(await restored(copy, hashes.keys()))];
    return {
      refused: results.filter(([, result]) => result.startsWith('ERR_')).map(([point]) => point),
      wrong: results
        .filter(([point, result]) => !result.startsWith('ERR_') && result !== hashes.get(point))
        .map(([point]) => point),
    };
  }

  test.each(['qcow2', 'leaves'])(
    'missing (%s) makes all points above it refuse',
    async (ending) => {
      const copy = await damagedCopy();
      const path = fileOf(copy, 2, ending);
      rmSync(path);
      const problems = await problemsOf(copy);
      expect(problems[0]).toMatchObject({ machine: 'm', point: 2 });
      expect(problems[0].message).toContain(path);
      expect(await outcome(copy)).toEqual({ refused: [2, 3, 4], wrong: [] });
    },
  );

  test.each([
    ['qcow2', 64 * KiB],
    ['leaves', 32],
  ])(
    'cut short at a border inside (%s, %i bytes) makes all points above it refuse',
    async (ending, bytes) => {
      const copy = await damagedCopy();
      const path = fileOf(copy, 2, ending);
      truncateSync(path, statSync(path).size - bytes);
      const problems = await problemsOf(copy);
      expect(problems[0]).toMatchObject({ machine: 'm', point: 2 });
      expect(problems[0].message).toContain(path);
      expect(await outcome(copy)).toEqual({ refused: [2, 3, 4], wrong: [] });
    },
  );

  test('cut short at a border inside (qcow2) is found by a backup, which lies over nothing of it', async () => {
    const copy = await damagedCopy();
    const path = fileOf(copy, 2, 'qcow2');
    truncateSync(path, statSync(path).size - 64 * KiB);
    const disks = [{ name: 'vda', source: join(folder, 'vda.qcow2') }];
    const report = await Repository.open(copy).backup({ machine: 'm', disks, bitmaps: false });
    expect(report.disks[0]).toMatchObject({
      mode: 'full',
      reason: expect.stringContaining(`${path} has `),
    });
  });

  test('renamed (qcow2) is missed by all points above it, and not found by its likeness', async () => {
    const copy = await damagedCopy();
    const path = fileOf(copy, 2, 'qcow2');
    renameSync(path, join(disks(copy), '2-00000000.qcow2'));
    expect((await problemsOf(copy))[0].message).toContain(`${path} is not there`);
    expect(await outcome(copy)).toEqual({ refused: [2, 3, 4], wrong: [] });
  });

  test('a missing manifest makes its point unknown, and those above it refuse', async () => {
    const copy = await damagedCopy();
    rmSync(join(points(copy), '2.json'));
    const problems = await problemsOf(copy);
    expect(problems[0].message).toContain('the manifest of point 2 of m is not there');
    expect(problems.find(({ point }) => point === 3)?.message).toContain(problems[0].message);
    expect(await outcome(copy)).toEqual({ refused: [2, 3, 4], wrong: [] });
  });

  test('the newest manifest is missed, and no older point is taken for it', async () => {
    const copy = await damagedCopy();
    const [path, away] = [join(points(copy), '4.json'), join(copy, 'away.json')];
    renameSync(path, away);
    const repository = Repository.open(copy);
    const [{ message }] = await problemsOf(copy);
    expect(message).toMatch(/4\.json: the manifest of point 4 of m is not there, and no prune has/);
    expect(() => repository.find('latest')).toThrow(/^Which point latest is cannot be told: /);
    expect(await outcome(copy)).toEqual({ refused: [4], wrong: [] });
    await expect(repository.prune({ keep: { last: 1 } })).rejects.toMatchObject({
      code: 'ERR_REPOSITORY_DAMAGED',
    });
    // A backup goes on beside it, and takes nothing of what could bring it back.
    const disk = join(folder, 'vda.qcow2');
    const source = { machine: 'm', disks: [{ name: 'vda', source: disk }], bitmaps: false };
    expect((await repository.backup(source)).point.number).toBe(5);
    expect((await problemsOf(copy))[0].message).toBe(message);
    renameSync(away, path);
    expect(await problemsOf(copy)).toEqual([]);
    await repository.prune({ keep: { last: 1 } });
    expect(await problemsOf(copy)).toEqual([]);
  });

  test('a point that nobody can bring back is done without when the list of points is removed', async () => {
    const copy = await damagedCopy();
    rmSync(join(points(copy), '4.json'));
    rmSync(join(copy, 'machines/m/points.json'));
    expect(await problemsOf(copy)).toEqual([]);
    expect(Repository.open(copy).find('latest').number).toBe(3);
  });

  test.each(['qcow2', 'leaves'])(
    'swapped with another (%s) makes both points refuse',
    async (ending) => {
      const copy = await damagedCopy();
      const [second, third] = [fileOf(copy, 2, ending), fileOf(copy, 3, ending)];
      renameSync(second, `${second}.away`);
      renameSync(third, second);
      renameSync(`${second}.away`, third);
      const numbers = (await problemsOf(copy)).map(({ point }) => point);
      expect(numbers).toEqual(expect.arrayContaining([2, 3]));
      const { refused, wrong } = await outcome(copy);
      expect(wrong).toEqual([]);
      expect(refused).toEqual(expect.arrayContaining([2, 3]));
    },
  );

  test('a manifest under the name of another is damage of both', async () => {
    const copy = await damagedCopy();
    const [second, third] = [join(points(copy), '2.json'), join(points(copy), '3.json')];
    renameSync(second, `${second}.away`);
    renameSync(third, second);
    renameSync(`${second}.away`, third);
    const messages = (await problemsOf(copy)).map(({ message }) => message).join('\n');
    expect(messages).toContain('it is that of point 3 of m');
    expect(messages).toContain('it is that of point 2 of m');
    expect(await outcome(copy)).toEqual({ refused: [2, 3, 4], wrong: [] });
  });

  test('a manifest of another machine is damage', async () => {
    const copy = await damagedCopy();
    const other = join(copy, 'machines/other/points');
    mkdirSync(other, { recursive: true });
    cpSync(join(points(copy), '1.json'), join(other, '1.json'));
    const problems = await problemsOf(copy);
    expect(problems.map(({ machine }) => machine)).toEqual(['other']);
  });

  test('an older point is not taken for the latest, or that of a time, whose manifest is damaged', async () => {
    const copy = await damagedCopy();
    const { time } = pointsOf(Repository.open(copy), 'm')[2];
    flipBit(join(points(copy), '4.json'), 200, 3);
    expect(() => Repository.open(copy).find('latest')).toThrow(
      /^Which point latest is cannot be told: .*4\.json.*The one before it is 3: name that number/,
    );
    flipBit(join(points(copy), '3.json'), 200, 3);
    expect(() => Repository.open(copy).find(time)).toThrow(/manifest of point 3 .*before it is 2/);
    flipBit(join(points(copy), '4.json'), 200, 3);
    expect(Repository.open(copy).find('latest').number).toBe(4);
  });

  test.each([
    ['no disks', { disks: null }],
    ['disks without files', { disks: [{ name: 'vda' }] }],
    ['no tags', { tags: null }],
    ['another time', { time: 'then' }],
  ])(
    'a manifest with %s is damage of its point alone, although its checksum fits',
    async (_, change) => {
      const copy = await damagedCopy();
      const path = join(points(copy), '4.json');
      writeFileSync(path, seal({ ...unseal(readFileSync(path)), ...change }));
      const repository = Repository.open(copy);
      expect(pointsOf(repository, 'm').map(({ number }) => number)).toEqual([1, 2, 3]);
      expect((await problemsOf(copy))[0].message).toContain(
        `${path}: the manifest of point 4 of m`,
      );
      await expect(repository.prune({ keep: { last: 1 } })).rejects.toMatchObject({
        code: 'ERR_REPOSITORY_DAMAGED',
      });
    },
  );

  test.each(['pipe', 'folder'])(
    'a %s in the place of a file is damage, and nothing waits for it',
    async (what) => {
      const copy = await damagedCopy();
      for (const path of [
        join(points(copy), '2.json'),
        fileOf(copy, 3, 'leaves'),
        fileOf(copy, 4, 'qcow2'),
      ]) {
        rmSync(path);
        execFileSync(what === 'pipe' ? 'mkfifo' : 'mkdir', [path]);
      }
      const numbers = (await problemsOf(copy)).map(({ point }) => point);
      expect(numbers).toEqual(expect.arrayContaining([3, 4]));
      const { refused, wrong } = await outcome(copy);
      expect(wrong).toEqual([]);
      expect(refused).toEqual([2, 3, 4]);
    },
  );

  test('times of files mean nothing', async () => {
    const copy = await damagedCopy();
    // Oldest last, as after a careless copy.
    for (const [i, name] of filesOf(copy).reverse().entries()) {
      utimesSync(join(copy, name), 1_000_000 + i, 1_000_000 + i);
    }
    expect(await problemsOf(copy)).toEqual([]);
    expect(await outcome(copy)).toEqual({ refused: [], wrong: [] });
  });

  test('a repository that was moved is as good as before', async () => {
    const copy = await damagedCopy();
    const moved = join(folder, 'moved');
    renameSync(copy, moved);
    const image = fileOf(moved, 4, 'qcow2');
    expect(execFileSync('qemu-img', ['check', image]).toString()).toContain('No errors');
    expect(hashOf(image, folder)).toBe(hashes.get(4));
    expect(await outcome(moved)).toEqual({ refused: [], wrong: [] });
  });

  test('an image with other bytes is damage, although it is a sound image', async () => {
    const copy = await damagedCopy();
    execFileSync('qemu-io', ['-c', 'write -P 9 1M 64k', fileOf(copy, 1, 'qcow2')]);
    const [problem] = await problemsOf(copy);
    expect(problem).toMatchObject({ point: 1, disk: 'vda' });
    expect((await outcome(copy)).wrong).toEqual([]);
    expect((await outcome(copy)).refused).toContain(1);
    const repository = Repository.open(copy);
    const target = join(folder, 'never.raw');
    const restoring = repository.restore({ point: 1, disks: [{ name: 'vda', target }] });
    await expect(restoring).rejects.toMatchObject({ code: 'ERR_REPOSITORY_DAMAGED', offset: MiB });
  });

  test('damage below keeps no backup from being made: it begins a chain of its own, and says so', async () => {
    const copy = await damagedCopy();
    rmSync(fileOf(copy, 2, 'qcow2'));
    const repository = Repository.open(copy);
    const disk = join(folder, 'vda.qcow2');
    const { disks } = await repository.backup({
      machine: 'm',
      disks: [{ name: 'vda', source: disk }],
    });
    expect(disks[0].mode).toBe('full');
    expect(disks[0].reason).toContain('is damaged');
    expect(pointsOf(repository, 'm')).toHaveLength(5);
    const target = join(folder, 'fifth.raw');
    await repository.restore({ point: 5, disks: [{ name: 'vda', target }] });
    expect(hashOfFile(target)).toBe(hashes.get(4));
  });
});
