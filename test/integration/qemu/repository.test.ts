/** Running machines in a repository: restore points of one moment, each restorable on its own. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type BackupSession,
  backupMachine,
  type Machine,
  type MachineBackupOptions,
  planMachine,
} from 'lacuna/qemu';
import { type BackupReport, Repository } from 'lacuna/repository';
import { Random } from 'lacuna/testing';
import { expect, onTestFinished, test } from 'vitest';
import { LiveMachine } from '../../support/live-machine.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { run, usePeers } from '../../support/peers.js';
import { rememberedBy } from '../../support/remembered.js';

const peers = usePeers();
const random = new Random(firstSeed());

interface Setting {
  readonly live: LiveMachine;
  readonly repository: Repository;
  /** The content of the disks at the last transaction. */
  content: Buffer[];
}

async function prepared(disks = 2): Promise<Setting> {
  const live = await LiveMachine.start(peers, { disks });
  const folder = join(live.folder, '..', 'repository');
  const setting = { live, repository: Repository.open(folder, { create: true }), content: [] };
  for (const guest of live.guests) await guest.scribble(random, 10);
  return setting;
}

/** One backup, while the guest writes between every two commands. */
async function backUp(setting: Setting, options: Partial<MachineBackupOptions> = {}) {
  const { live, repository } = setting;
  const machine: Machine = await live.connect();
  onTestFinished(() => machine.close());
  live.proxy.reset({
    before: async ({ name }) => {
      for (const guest of live.guests) await guest.scribble(random, 1);
      if (name !== 'transaction') return;
      setting.content = live.guests.map(({ content }) => Buffer.from(content));
    },
  });
  try {
    return await backupMachine(repository, machine, {
      ...{ machine: 'web', disks: live.choices },
      ...options,
    });
  } finally {
    live.proxy.reset();
    await machine.close();
  }
}

/** Restores the newest point with QEMU's own tool, from the files as they are. */
async function restored({ live, repository }: Setting): Promise<Buffer[]> {
  const point = repository.points('web')[0].points.at(-1)!;
  return await Promise.all(
    live.names.map(async (name) => {
      const disk = point.disks.find((one) => one.name === name)!;
      const image = join(repository.path, 'machines/web/disks', name, disk.file.name);
      const raw = join(live.folder, '..', `${name}.restored`);
      await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, raw]);
      return readFileSync(raw);
    }),
  );
}

async function expectRight(setting: Setting): Promise<void> {
  const images = await restored(setting);
  for (const [index, image] of images.entries()) {
    expect(image.equals(setting.content[index]), setting.live.names[index]).toBe(true);
  }
}

test('points of a machine that is written meanwhile are of one moment, and verify', async () => {
  const setting = await prepared();
  const { live, repository } = setting;
  const lasting = new AbortController();
  const first = await backUp(setting, { signal: lasting.signal });
  expect(rememberedBy(lasting.signal)).toBe(0);
  expect(first.disks.map(({ mode }) => mode)).toEqual(['full', 'full']);
  await expectRight(setting);
  for (let round = 0; round < 3; round++) {
    for (const guest of live.guests) await guest.scribble(random, 2);
    const { disks, point, warnings } = await backUp(setting);
    expect(warnings).toEqual([]);
    expect(disks.map(({ mode }) => mode)).toEqual(['given', 'given']);
    expect(point.configuration).toMatchObject({ frozen: false, disks: [{ name: 'vda' }, {}] });
    await expectRight(setting);
    // The bitmap has the name that the manifest says.
    expect(await live.leftovers()).toEqual(
      point.disks.map(({ name, bitmap }) => `bitmap ${name}/${bitmap}`),
    );
  }
  const { problems } = await repository.verify({ machine: 'web' });
  expect(problems).toEqual([]);
});

test('a machine whose bitmaps are lost is compared by digests, and taken in full where that is asked', async () => {
  const setting = await prepared(1);
  const { live } = setting;
  const { point } = await backUp(setting);
  await live.other.execute('block-dirty-bitmap-remove', {
    ...{ node: 'vda', name: point.disks[0].bitmap },
  });
  await live.guests[0].scribble(random, 2);
  const { disks } = await backUp(setting);
  expect(disks[0].mode).toBe('digests');
  await expectRight(setting);
  expect((await backUp(setting, { full: true })).disks[0].mode).toBe('full');
  await expectRight(setting);
});

test('bitmaps of the newest points are kept, so that pruned ones cost no increment', async () => {
  const setting = await prepared(1);
  const { live, repository } = setting;
  const bitmaps = (points: BackupReport[]) =>
    points.map(({ point }) => `bitmap vda/${point.disks[0].bitmap}`).sort();
  const made: BackupReport[] = [];
  const keepBitmaps = 3;
  for (const tag of ['a', 'kept', 'b', 'c']) {
    made.push(await backUp(setting, { keepBitmaps, tags: [tag] }));
    expect(await live.leftovers()).toEqual(bitmaps(made.slice(-keepBitmaps)));
  }
  // Disks of another machine of the repository may be in the same QEMU.
  const other = await backUp(setting, { keepBitmaps, machine: 'other' });
  expect(await live.leftovers()).toEqual(bitmaps([...made.slice(-keepBitmaps), other]));
  await repository.prune({ machine: 'web', keep: { tags: ['kept'] } });
  await live.guests[0].scribble(random, 2);
  const next = await backUp(setting, { keepBitmaps });
  expect(next.disks[0].mode).toBe('given');
  await expectRight(setting);
  // Nobody knows any more whose those of the others were.
  expect(await live.leftovers()).toEqual(bitmaps([made[1], next, other]));
  const last = await backUp(setting);
  expect(await live.leftovers()).toEqual(bitmaps([last, other]));
});

test('a backup that keeps one bitmap removes those of points that were pruned since', async () => {
  const setting = await prepared(1);
  const { live, repository } = setting;
  const keepBitmaps = 3;
  for (let n = 0; n < 3; n++) await backUp(setting, { keepBitmaps });
  await repository.prune({ machine: 'web', keep: { last: 1 } });
  expect(await live.leftovers()).toHaveLength(3);
  const { point } = await backUp(setting);
  expect(await live.leftovers()).toEqual([`bitmap vda/${point.disks[0].bitmap}`]);
});

test('bitmaps of pruned points go, and those of a session that has begun meanwhile stay', async () => {
  const setting = await prepared();
  const { live, repository } = setting;
  const disks = [{ node: 'vda', name: 'vda' }];
  const options = { keepBitmaps: 3, disks };
  for (let n = 0; n < 2; n++) await backUp(setting, options);
  await repository.prune({ machine: 'web', keep: { last: 1 } });
  const machine = await live.connect();
  onTestFinished(() => machine.close());
  // Its point is not there yet.
  const generation = `${repository.id.slice(0, 8)}-${'0'.repeat(16)}`;
  let session: BackupSession | undefined;
  const before = async () => {
    session = await machine.backup({ disks: [{ node: 'vdb', name: 'vdb' }], generation });
  };
  await backupMachine(repository, machine, { machine: 'web', ...options, before });
  for await (const _ of session!.disks[0].extents());
  await session!.finish(() => {});
  const points = repository.points('web')[0].points;
  expect(await live.leftovers()).toEqual([
    ...points.map(({ disks: [disk] }) => `bitmap vda/${disk.bitmap}`).sort(),
    `bitmap vdb/lacuna-${generation}@vdb`,
  ]);
});

test('a view that is lost before the end makes no point, and loses nothing', async () => {
  const setting = await prepared(1);
  const { live, repository } = setting;
  await backUp(setting);
  const machine = await live.connect();
  onTestFinished(() => machine.close());
  const job = backupMachine(repository, machine, { machine: 'web', disks: live.choices });
  live.proxy.reset({
    // The check behind the last read: the job was there when it was begun, and is not any more.
    before: async ({ name, index }) => {
      if (name !== 'query-jobs' || !live.proxy.passed.slice(0, index).includes('transaction'))
        return;
      const [theirs] = await live.other.execute('query-jobs');
      if (theirs?.status === 'running') await live.other.execute('job-cancel', { id: theirs.id });
    },
  });
  await expect(job).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  live.proxy.reset();
  expect(repository.points('web')[0].points).toHaveLength(1);
  await machine.close();
  const { disks } = await backUp(setting);
  expect(disks[0].mode).toBe('given');
  await expectRight(setting);
});

const STEPS = [
  'nothing',
  'write',
  'write',
  'restart',
  'kill',
  'resize',
  'snapshot',
  'reopen',
  'failed',
];

test('whatever happens to a machine between backups, each is right', async () => {
  const setting = await prepared(1);
  const { live } = setting;
  const done: string[] = [];
  for (let round = 0; round < runsOr(10); round++) {
    const step = random.pick(STEPS);
    done.push(step);
    if (step === 'write') await live.guests[0].scribble(random, 6);
    else if (step === 'failed') await failed(setting);
    else if (step === 'snapshot') await live.snapshot('vda');
    else if (step === 'reopen') await live.reopen('vda', random.pick(['unmap', 'ignore']));
    else if (step !== 'nothing') {
      await live.stop(step === 'kill' ? 'SIGKILL' : 'SIGTERM');
      // Bitmaps that may lack writes keep an image from being resized.
      if (step === 'resize') await resized(live.file('vda'));
      await live.start();
    }
    const { disks } = await backUp(setting);
    done.push(disks[0].mode);
    await expectRight(setting).catch((error: Error) => {
      throw new Error(`seed ${firstSeed()}, ${done.join(', ')}: ${error.message}`);
    });
  }
});

/** Makes a disk smaller or larger, in whole granules or not. */
async function resized(file: string): Promise<void> {
  const size = (4 + random.below(20)) * 65536 + random.pick([0, 512, 4096]);
  await run('qemu-img', ['resize', '--shrink', '-f', 'qcow2', file, String(size)]);
}

/** A backup that is given up after some of it was read. */
async function failed({ live, repository }: Setting): Promise<void> {
  const machine = await live.connect();
  const ending = new AbortController();
  live.proxy.reset({
    before: async ({ name }) => {
      for (const guest of live.guests) await guest.scribble(random, 1);
      if (name === 'block-export-add') ending.abort();
    },
  });
  const options = { machine: 'web', disks: live.choices, signal: ending.signal };
  await expect(backupMachine(repository, machine, options)).rejects.toMatchObject({
    code: 'ERR_ABORTED',
  });
  live.proxy.reset();
  await machine.close();
}

test('options that make no sense are refused before anything is done', async () => {
  const setting = await prepared(1);
  await using machine = await setting.live.connect();
  const { repository } = setting;
  expect(() => backupMachine(repository, machine, { machin: 'web' } as never)).toThrow(
    /did you mean "machine"/,
  );
  expect(() => backupMachine(repository, undefined as never, { machine: 'web' })).toThrow(
    /needs a machine/,
  );
  expect(() => backupMachine(repository, machine, { machine: 'a b' })).toThrow(
    /machine must have 1 to 64 of the characters/,
  );
  expect(() => backupMachine(repository, machine, { machine: 'web', longestChain: 0 })).toThrow(
    /longestChain must be a whole number from 1 to 500/,
  );
  expect(() => backupMachine(repository, machine, { machine: 'web', keepBitmaps: 0 })).toThrow(
    'keepBitmaps must be a whole number from 1 to 100, not 0',
  );
  await expect(planMachine(repository, machine, { machine: 'a b' })).rejects.toThrow(
    /machine must have 1 to 64 of the characters/,
  );
});
