/** `lacuna migrate`, and migrations over restore points of a repository. */
import { join } from 'node:path';
import { createQcow2 } from 'lacuna';
import { backupMachine } from 'lacuna/qemu';
import { type Manifest, Repository } from 'lacuna/repository';
import { describe, expect, test } from 'vitest';
import { DISK_BYTES, MovingMachine } from '../../support/moving-machine.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const peers = usePeers('suite');

function migrate(moving: MovingMachine, ...args: string[]) {
  const sockets = ['--qmp', moving.source.proxy.path, '--to-qmp', moving.destination.proxy.path];
  const scratch = ['--scratch', moving.folder];
  return runCli(['migrate', ...sockets, ...scratch, '--bitmap', moving.generation, ...args]);
}

test('a machine is planned and moved on the command line', async () => {
  const moving = await MovingMachine.start(peers, 2);
  await moving.await();
  await moving.write('vdb', 65536, 10, 5);
  await moving.source.other.execute('block-dirty-bitmap-add', { node: 'vdb', name: 'b0' });
  const targets = moving.names.flatMap((name) => [
    '--disk',
    `${name}=${moving.destination.images[name]}`,
  ]);
  const plan = await migrate(moving, '--plan', ...targets);
  expect(plan).toMatchObject({ code: 0, stderr: '' });
  expect(plan.stdout).toMatch(
    /^vda: 0 B of 1 MiB are dirty in "lacuna-\w+@vda" and would move to .*; the next increment goes on from there\.\nvdb: 64 KiB of 1 MiB are dirty .* goes on from there\. Its other bitmaps do not arrive \("b0"\): what counts from them is full next time\.\nMemory: up to 16 MiB/,
  );
  const alone = await migrate(moving, moving.destination.images.vda);
  expect(alone).toMatchObject({ code: 2 });
  expect(alone.stderr).toContain('--disk DISK=TARGET');
  const moved = await migrate(moving, ...targets);
  expect(moved).toMatchObject({ code: 0, stderr: '' });
  expect(moved.stdout).toMatch(
    /^Round 1: 64 KiB copied in .*, 0 B left\.\nRound 2: 0 B copied in .*, nothing left\.\nMemory: .* sent\.\nThe machine runs on the destination, and the source has ended\. It stood still for .*\n$/,
  );
  expect(await moving.isRunning(moving.destination)).toBe(true);
});

test('the command gives up when it is interrupted, and the machine stays where it is', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  let interrupt = () => {};
  moving.source.proxy.reset({
    before: ({ name }) => {
      if (name === 'migrate') interrupt();
    },
  });
  const args = ['--qmp', moving.source.proxy.path, '--to-qmp', moving.destination.proxy.path];
  const more = ['--scratch', moving.folder, '--bitmap', moving.generation];
  const { code, stderr } = await runCli(
    ['migrate', ...args, ...more, moving.destination.images.vda],
    {
      started: (child) => {
        interrupt = () => child.kill('SIGINT');
      },
    },
  );
  expect(stderr).toContain('the source goes on with its own disks');
  expect(code).toBe(130);
  expect(await moving.isRunning(moving.source)).toBe(true);
  expect(await moving.leftovers()).toEqual([]);
});

test.each([
  ['without a target', [], 'say where the disk moves'],
  ['with a target and targets of disks', ['--disk', 'vda=/a', '/b'], 'say where the disk moves'],
  ['with a disk that moves nowhere', ['--disk', 'vda'], '--disk takes DISK=TARGET'],
])('the command is refused %s', async (_, args, message) => {
  const given = ['migrate', '--qmp', '/x', '--to-qmp', '/y', '--bitmap', 'b', ...args];
  const { code, stderr } = await runCli(given);
  expect(stderr).toContain(message);
  expect(code).toBe(2);
});

describe('over a restore point of a repository', () => {
  test('a machine moves, backups go on from it, and prune leaves it alone', async () => {
    const moving = await MovingMachine.start(peers);
    const folder = join(moving.folder, '..');
    const repository = Repository.open(join(folder, 'repository'), { create: true });
    const overlay = async (name: string, { disks }: Manifest) => {
      const path = join(folder, name);
      const filename = join(repository.path, 'machines/web/disks/vda', disks[0].file.name);
      const backing = { filename, format: 'qcow2' };
      await createQcow2(path, { size: DISK_BYTES, backing });
      return path;
    };
    const machine = await moving.connect();
    const first = await backupMachine(repository, machine, { machine: 'web' });
    await moving.write('vda', 65536, 65536, 8);
    const { point } = await backupMachine(repository, machine, { machine: 'web' });
    moving.generation = `${repository.id.slice(0, 8)}-${point.id}`;
    await moving.write('vda', 3 * 65536, 65536, 9);

    const ofPoint = join(repository.path, 'machines/web/disks/vda', point.disks[0].file.name);
    await moving.await({ vda: ofPoint });
    await expect(machine.migrate(moving.move)).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
      message: expect.stringContaining('is an image of restore point 2 of web, which would be'),
    });
    await moving.endDestination();

    await moving.await({ vda: await overlay('old.qcow2', first.point) });
    const { move: wrong } = moving;
    await expect(machine.migrate(wrong)).rejects.toMatchObject({
      code: 'ERR_BITMAP_MISMATCH',
      message: expect.stringMatching(/lies over restore point 1 of web.*counts from 2/),
    });
    await moving.endDestination();

    await moving.await({ vda: await overlay('new.qcow2', point) });
    const report = await machine.migrate(moving.move);
    expect(report.rounds[0].movedBytes).toBe(65536);
    await machine.close();
    await moving.moved();
    await moving.write('vda', 5 * 65536, 65536, 10);
    await using there = await moving.connect();
    const next = await backupMachine(repository, there, { machine: 'web' });
    expect(next.disks).toMatchObject([{ mode: 'given', movedBytes: 2 * 65536 }]);
    const restored = await Repository.open(repository.path).verify({ machine: 'web' });
    expect(restored.problems).toEqual([]);
    const pruning = repository.prune({ machine: 'web', keep: { last: 1 } });
    await expect(pruning).rejects.toThrow(/new\.qcow2 lies over point 2/);
  });

  test('a machine moves to no overlay over another disk, over another machine, or over an unknown backup', async () => {
    const moving = await MovingMachine.start(peers, 2);
    const repository = Repository.open(join(moving.folder, '../repository'), { create: true });
    const machine = await moving.connect();
    const { generation: unknown } = moving;
    const other = await backupMachine(repository, machine, { machine: 'other' });
    await backupMachine(repository, machine, { machine: 'web' });
    const { point } = await backupMachine(repository, machine, { machine: 'web' });
    const known = `${repository.id.slice(0, 8)}-${point.id}`;
    for (const node of moving.names) {
      const bitmap = { node, name: 'own', granularity: 65536 };
      await moving.source.other.execute('block-dirty-bitmap-add', bitmap);
    }
    let made = 0;
    const over = async ({ machine: name, disks }: Manifest, ...below: string[]) => {
      const images: Record<string, string> = {};
      for (const [i, disk] of moving.names.entries()) {
        const { file } = disks.find((one) => one.name === below[i])!;
        const folder = join(repository.path, 'machines', name, 'disks', below[i]);
        const backing = { filename: join(folder, file.name), format: 'qcow2' };
        images[disk] = join(moving.folder, `../over${made++}.qcow2`);
        await createQcow2(images[disk], { size: DISK_BYTES, backing });
      }
      return images;
    };
    const wrong = [
      [known, await over(point, 'vdb', 'vda'), 'point 2 of web, disk vda: that is another disk'],
      [
        known,
        await over(other.point, 'vda', 'vdb'),
        'point 2 of web, disk vda: that is another disk',
      ],
      [unknown, await over(point, 'vda', 'vdb'), 'a backup that its repository does not have'],
      ['own', await over(point, 'vdb', 'vda'), 'vda is another disk of this machine'],
    ] as const;
    for (const [bitmap, images, message] of wrong) {
      await moving.await(images);
      await expect(machine.migrate({ ...moving.move, bitmap })).rejects.toMatchObject({
        code: 'ERR_BITMAP_MISMATCH',
        message: expect.stringContaining(message),
      });
      await moving.endDestination();
    }
    await moving.await(await over(point, 'vda', 'vdb'));
    await machine.migrate({ ...moving.move, bitmap: known });
    await machine.close();
    expect(await moving.isRunning(moving.destination)).toBe(true);
  });
});
