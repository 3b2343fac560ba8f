/** What migrations meet in the middle: disks that somebody changes, images that have no room, a source that is killed. */
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { MovingMachine } from '../../support/moving-machine.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers();

/** Has a migration meet something when its rounds are over and its memory has not begun to move. */
async function meet(moving: MovingMachine, what: () => Promise<unknown>): Promise<unknown> {
  const machine = await moving.connect();
  onTestFinished(() => machine.close());
  let hasMet = false;
  moving.source.proxy.reset({
    before: async ({ name }) => {
      if (name !== 'migrate' || hasMet) return;
      hasMet = true;
      await what();
    },
  });
  return await machine.migrate(moving.move).catch((error: unknown) => error);
}

test('a snapshot of a disk while memory moves ends the migration: no write behind it stays behind', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const failure = await meet(moving, async () => {
    await moving.source.other.execute('blockdev-snapshot-sync', {
      ...{ 'node-name': 'vda', 'snapshot-node-name': 'snap', format: 'qcow2' },
      'snapshot-file': join(moving.folder, '..', 'snap.qcow2'),
    });
    await moving.write('vda', 5 * 65536, 100, 7);
  });
  expect(failure).toMatchObject({ code: 'ERR_MIGRATION_FAILED' });
  expect((failure as Error).message).toContain('vda has another image on top');
  expect(await moving.isRunning(moving.source)).toBe(true);
});

/** The same, and QEMU is only asked for the state of the machine when it waits for the switch: then it no longer tells who has stopped it. */
async function meetUnseen(moving: MovingMachine, what: 'stop' | 'cont'): Promise<unknown> {
  const { proxy, other } = moving.source;
  return meet(moving, async () => {
    await other.execute(what);
    const { before } = proxy.hooks;
    proxy.hooks.before = async (command) => {
      await before?.(command);
      if (command.name !== 'query-status') return;
      while ((await other.execute('query-migrate')).status !== 'pre-switchover');
      proxy.hooks = {};
    };
  });
}

test('a machine that somebody stops after the plan stands still on the other side', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const report = await meetUnseen(moving, 'stop');
  expect(report).toMatchObject({ isRunning: false, warnings: [] });
  expect(report).not.toHaveProperty('pauseMs');
  expect(await moving.isRunning(moving.destination)).toBe(false);
});

test('a machine that somebody lets go on after the plan runs on the other side', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  await moving.source.other.execute('stop');
  const report = await meetUnseen(moving, 'cont');
  expect(report).toMatchObject({ isRunning: true, pauseMs: expect.any(Number) });
  expect(await moving.isRunning(moving.destination)).toBe(true);
});

test('a machine that somebody stops while memory moves and a round is made stands still on the other side', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const { other } = moving.source;
  await other.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 17 });
  const machine = await moving.connect();
  onTestFinished(() => machine.close());
  let hasStopped = false;
  moving.source.proxy.reset({
    after: async ({ name }) => {
      // Something is left, so that there is another round.
      if (name === 'migrate') await moving.write('vda', 0, 65536, 3);
      const { passed } = moving.source.proxy;
      if (name !== 'block-export-add' || hasStopped || !passed.includes('migrate')) return;
      hasStopped = true;
      expect(await other.execute('query-migrate')).toMatchObject({ status: 'active' });
      await other.execute('stop');
      // The look at the machine follows at once, before the next command of the round.
      await other.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 30 });
    },
  });
  const report = await machine.migrate({ ...moving.move, leaveBytes: 0 });
  expect({ hasStopped, ...report }).toMatchObject({ hasStopped: true, isRunning: false });
  expect(await moving.isRunning(moving.destination)).toBe(false);
});

test('a disk that grows while memory moves ends the migration', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const failure = await meet(moving, () =>
    moving.source.other.execute('block_resize', { 'node-name': 'vda', size: 2 ** 21 }),
  );
  expect(failure).toMatchObject({ code: 'ERR_MIGRATION_FAILED' });
  expect((failure as Error).message).toContain('vda has 2097152 bytes, and had 1048576');
  expect(await moving.isRunning(moving.source)).toBe(true);
  expect(await moving.leftovers()).toEqual([]);
});

test('a target that has no more room leaves nothing in the source', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  await moving.write('vda', 0, 12 * 65536, 7);
  const child = fileURLToPath(new URL('migrate-child.mjs', import.meta.url));
  const given = JSON.stringify({ machine: moving.options, migrate: moving.move });
  const message = await new Promise<string>((resolve) => {
    const args = ['--fsize=524288', process.execPath, child, given];
    execFile('prlimit', args, (_, __, stderr) => resolve(stderr));
  });
  expect(message).toContain('EFBIG');
  expect(message).not.toContain('something is left');
  expect(await moving.isRunning(moving.source)).toBe(true);
  expect(await moving.leftovers()).toEqual([]);
});

test('a source that is killed once it has handed over has moved', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const machine = await moving.connect();
  onTestFinished(() => machine.close());
  moving.source.proxy.reset({
    after: async ({ name }) => {
      if (name !== 'migrate-continue') return;
      const { other } = moving.destination;
      const hasAll = async () => (await other.execute('query-migrate')).status === 'completed';
      while (!(await hasAll()));
      await moving.source.qemu.stop('SIGKILL');
    },
  });
  const report = await machine.migrate(moving.move);
  expect(report.warnings).toEqual([expect.stringContaining('the source cannot be asked any more')]);
  expect(await moving.isRunning(moving.destination)).toBe(true);
});

test('a scratch folder that is gone in the end does not make a migration fail', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const machine = await moving.connect();
  onTestFinished(() => machine.close());
  moving.source.proxy.reset({
    before: ({ name }) => {
      if (name === 'quit') rmSync(moving.folder, { recursive: true });
    },
  });
  const { isRunning, warnings } = await machine.migrate(moving.move);
  expect(isRunning).toBe(true);
  expect(warnings).toEqual([expect.stringMatching(/ is left: .*ENOENT/)]);
});

test('a destination has its capabilities back when the machine runs there', async () => {
  const moving = await MovingMachine.start(peers);
  await moving.await();
  const { other } = moving.destination;
  const before = await other.execute('query-migrate-capabilities');
  expect(await meet(moving, async () => {})).toMatchObject({ isRunning: true });
  expect(await other.execute('query-migrate-capabilities')).toEqual(before);
});
