/** Backup, prune and restore may be killed at any moment: every listed point restores, and nothing is lost or left. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Repository } from 'lacuna/repository';
import { afterAll, expect, test } from 'vitest';
import { Random } from '#dist/testing/index.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import {
  change,
  hashOf,
  hashOfFile,
  KiB,
  MiB,
  makeImage,
  pointsOf,
} from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

/** Moments of death. */
const KILLS = runsOr(20, 200);
/** No operation here takes longer, so that some moments are near its end. */
const LONGEST_MS = 250;

const random = new Random(firstSeed());
const folder = temporaryFolder();
const path = join(folder, 'repository');
const disk = join(folder, 'vda.qcow2');
const machine = 'm';
const outcomes: Record<string, number> = {};
afterAll(() => console.log(JSON.stringify(outcomes)));

/** Runs an operation, and kills it at some moment after it has begun; tells whether it had ended by itself. */
async function killed(method: string, options: object): Promise<boolean> {
  const child = fork(new URL('operate.mjs', import.meta.url), { stdio: 'inherit' });
  const exited = once(child, 'exit');
  child.send({ repository: path, method, options });
  const [first] = await once(child, 'message');
  expect(first).toBe('begun');
  let isDone = false;
  child.on('message', () => {
    isDone = true;
  });
  await Promise.race([sleep(random.below(LONGEST_MS)), exited]);
  child.kill('SIGKILL');
  await exited;
  const key = `${method} ${isDone ? 'done' : 'killed'}`;
  outcomes[key] = (outcomes[key] ?? 0) + 1;
  return isDone;
}

test(`a repository is whole after ${KILLS} kills at random moments`, async () => {
  makeImage(disk, 40 * MiB);
  /** What a point holds, by what tells it: its tag. */
  const hashes = new Map<string, string>();
  /** The tags of points that there must be. */
  let sure: string[] = [];
  let backups = 0;

  const backup = async (run: typeof killed) => {
    await change(disk, async (device) => {
      for (let i = 0; i < 6; i++) {
        await device.write(random.below(39) * MiB, random.bytes(200 * KiB));
      }
    });
    const tag = `b${++backups}`;
    hashes.set(tag, hashOf(disk, folder));
    const disks = [{ name: 'vda', source: disk }];
    if (await run('backup', { machine, disks, tags: [tag], longestChain: 6 })) sure.push(tag);
  };
  const prune = async () => {
    const points = pointsOf(Repository.open(path), machine);
    const kept = points.slice(-3).map(({ tags }) => tags[0]);
    sure = sure.filter((tag) => kept.includes(tag));
    await killed('prune', { keep: { last: 3 } });
  };
  const restore = async () => {
    const target = join(folder, 'out.raw');
    rmSync(target, { force: true });
    const isDone = await killed('restore', { point: 'latest', disks: [{ name: 'vda', target }] });
    if (isDone || existsSync(target)) {
      const [tag] = pointsOf(Repository.open(path), machine).at(-1)!.tags;
      expect(hashOfFile(target)).toBe(hashes.get(tag));
    }
  };
  const check = async () => {
    const repository = Repository.open(path);
    const points = pointsOf(repository, machine);
    expect(points.map(({ tags }) => tags[0])).toEqual(expect.arrayContaining(sure));
    const target = join(folder, 'checked.raw');
    for (const { number, tags } of points) {
      await repository.restore({ point: number, disks: [{ name: 'vda', target }] });
      expect({ number, hash: hashOfFile(target) }).toEqual({ number, hash: hashes.get(tags[0]) });
    }
  };
  const inPeace: typeof killed = async (method, options) => {
    await Repository.open(path)[method as 'backup'](options as never);
    return true;
  };

  Repository.open(path, { create: true });
  await backup(inPeace);
  for (let kill = 0; kill < KILLS; kill++) {
    const chance = random.below(10);
    if (chance < 5) await backup(killed);
    else if (chance < 8) await prune();
    else await restore();
    await check();
    if (kill % 5 !== 4) continue;
    await backup(inPeace);
    await check();
    const { problems, unnamed } = await Repository.open(path).verify();
    expect({ problems, unnamed }).toEqual({ problems: [], unnamed: [] });
  }
  await backup(inPeace);
  const left = readdirSync(path, { recursive: true, encoding: 'utf8' });
  expect(left.filter((name) => /\.partial-|\.new$|locks\/./.test(name))).toEqual([]);
});
