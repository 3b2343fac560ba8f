/** `lacuna recover`: what a killed `lacuna backup` has left in a running machine is taken away, and what comes next is told. */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from 'lacuna/testing';
import { beforeEach, describe, expect, test } from 'vitest';
import { LiveMachine } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';
import type { PassingCommand } from '../../support/qmp-proxy.js';
import { runCli } from '../../support/run-cli.js';

const peers = usePeers();
const random = new Random(1);
let live: LiveMachine;
let repository: string;

beforeEach(async () => {
  live = await LiveMachine.start(peers);
  repository = join(live.folder, '..', 'repository');
  await live.guests[0].scribble(random, 6);
  expect(await backup()).toMatchObject({ code: 0 });
});

function machineFlags(): string[] {
  const nbd = `nbd+unix:///?socket=${live.nbd.path}`;
  return ['--qmp', live.proxy.path, '--nbd', nbd, '--disk', 'node:vda', '--scratch', live.folder];
}

function backup(started?: Parameters<typeof runCli>[1]) {
  return runCli(['backup', ...machineFlags(), '--machine', 'web', repository], started);
}

function recover(...args: string[]) {
  return runCli(['recover', ...machineFlags(), '--machine', 'web', ...args, repository]);
}

/** A backup that is killed when QEMU has answered a command, the `times`th of its name. */
async function killedAfter(name: string, times = 1): Promise<void> {
  let kill = () => {};
  let seen = 0;
  live.proxy.reset({
    after: (command: PassingCommand) => {
      if (command.name !== name || ++seen < times) return;
      kill();
      throw new Error('the process is dead');
    },
  });
  const started = (child: { kill(signal: 'SIGKILL'): void }) => {
    kill = () => child.kill('SIGKILL');
  };
  expect((await backup({ started })).code).toBe(null);
  live.proxy.reset();
}

/** The bitmap of the point, and of no other. */
function bitmapOf(point: number): Promise<string[]> {
  return runCli(['list', '--json', repository]).then(({ stdout }) => {
    const { machines } = JSON.parse(stdout);
    const found = machines[0].points.find(({ number }: { number: number }) => number === point);
    return [`bitmap vda/${found.disks[0].bitmap}`];
  });
}

describe('recovering a machine', () => {
  test.each([
    ['blockdev-add', 1],
    ['transaction', 1],
    ['block-export-add', 1],
    ['job-cancel', 1],
    ['block-dirty-bitmap-remove', 2],
  ])(
    'after a backup that was killed behind %s, says so, and what the next one has',
    async (name, point) => {
      await live.guests[0].write(0, Buffer.alloc(512, 7));
      await killedAfter(name);
      await live.guests[0].write(2 ** 18, Buffer.alloc(512, 8));
      const { code, stdout, stderr } = await recover();
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^Took away what the backup lacuna-\w{8} had left\.\n/);
      expect(stdout).toMatch(/^Removed the bitmaps of the generation \w{8}-\w{16}\.$/m);
      const dirty = point === 1 ? '128 KiB' : '64 KiB';
      expect(stdout).toContain(
        `The next backup of web, over web/${point}:\nvda: what has changed (${dirty} dirty), the bitmap`,
      );
      expect(await live.leftovers()).toEqual(await bitmapOf(point));
      expect(await backup()).toMatchObject({ code: 0 });
      const restored = join(live.folder, '..', 'restored.raw');
      await runCli(['restore', repository, 'latest', restored]);
      expect(readFileSync(restored).equals(live.guests[0].content)).toBe(true);
    },
  );

  test('names what it knows nothing of, and takes it away where that is asked', async () => {
    await killedAfter('transaction');
    const [prefix] = readdirSync(live.folder);
    rmSync(join(live.folder, prefix), { recursive: true });
    const left = await recover();
    expect(left.code).toBe(3);
    expect(left.stdout).toMatch(
      new RegExp(`^Left alone: what ${prefix} has in the machine, .*say --unknown\\.$`, 'm'),
    );
    const { code, stdout } = await recover('--unknown', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      machine: 'web',
      recovered: [prefix],
      unknown: [],
      warnings: [],
      next: { parent: 1, disks: [{ mode: 'incremental' }] },
    });
  });

  test('says so where there is nothing to take away', async () => {
    const { code, stdout } = await recover();
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Nothing was left by earlier backups\.\nThe next backup of web, over/);
  });

  test('does what it can where the next backup cannot be planned, and says that', async () => {
    await killedAfter('transaction');
    const nowhere = ['--disk', 'node:gone'];
    const { code, stdout, stderr } = await recover(...nowhere);
    expect(code).toBe(3);
    expect(stdout).toMatch(/^Took away what the backup lacuna-\w{8} had left\.\n/);
    expect(stderr).toContain('the next backup cannot be planned:');
    expect(await live.leftovers()).toEqual(await bitmapOf(1));
  });

  test('is refused without a machine, and without a repository', async () => {
    const nameless = await runCli(['recover', repository]);
    expect(nameless.code).toBe(2);
    expect(nameless.stderr).toContain('--qmp SOCKET, or --libvirt DOMAIN');
    const nowhere = join(live.folder, '..', 'nowhere');
    const missing = await runCli(['recover', ...machineFlags(), '--machine', 'web', nowhere]);
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain('ERR_REPOSITORY_FORMAT');
  });
});
