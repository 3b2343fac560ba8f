/** `lacuna backup --qmp`, on a running machine. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from 'lacuna/testing';
import { beforeAll, describe, expect, test } from 'vitest';
import { LiveMachine } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const peers = usePeers('suite');
let live: LiveMachine;
let repository: string;

beforeAll(async () => {
  live = await LiveMachine.start(peers, { disks: 1 });
  repository = join(live.folder, '..', 'repository');
  await live.guests[0].scribble(new Random(1), 6);
});

function backup(...args: string[]) {
  const nbd = `nbd+unix:///?socket=${live.nbd.path}`;
  const machine = ['--qmp', live.proxy.path, '--nbd', nbd, '--disk', 'node:vda'];
  return runCli(['backup', ...machine, '--machine', 'web', ...args, repository]);
}

test('a running machine is planned, backed up, and restored', async () => {
  const planned = await backup('--plan');
  expect(planned.stdout).toMatch(
    /^vda: all of it, because no earlier backup is given\. Disk: .*vda\.qcow2\n/,
  );
  expect(planned.stdout).toMatch(/are free for scratch images\.\n$/);
  const first = await backup();
  expect(first).toMatchObject({ code: 0 });
  expect(first.stdout).toMatch(
    /^vda: all of it, because .* read, .* stored, .*\nRestore point web\/1 in /,
  );
  await live.guests[0].write(70000, Buffer.alloc(10, 7));
  const next = await backup('--plan');
  expect(next.stdout).toMatch(
    /^vda: what has changed \(64 KiB dirty\), the bitmap "lacuna-\w{8}-\w{16}@vda" has/,
  );
  const { stdout } = await backup('--keep-bitmaps', '2', '--json');
  expect(JSON.parse(stdout)).toMatchObject({ point: { number: 2 }, disks: [{ mode: 'given' }] });
  expect(await live.leftovers()).toHaveLength(2);
  const restored = join(live.folder, '..', 'restored.raw');
  expect(await runCli(['restore', repository, 'latest', restored])).toMatchObject({ code: 0 });
  expect(readFileSync(restored).equals(live.guests[0].content)).toBe(true);
});

test('what is in the way is a part of the plan, and fails the backup', async () => {
  const args = ['backup', '--qmp', live.proxy.path, '--disk', 'node:vda', '--machine', 'web'];
  const { stdout } = await runCli([...args, '--plan', repository]);
  expect(stdout).toMatch(/In the way: QEMU runs an NBD server already, with the exports guest-vda/);
  const { code, stderr } = await runCli([...args, repository]);
  expect(code).toBe(1);
  expect(stderr).toContain('ERR_MACHINE_BUSY');
});

describe('a backup of a running machine is refused', () => {
  test.each([
    ['without a monitor', ['--qmp', '/nowhere/qmp'], 1, 'ERR_QMP_DISCONNECTED'],
    ['with disks of its own', ['--qmp', '/x', 'disk.raw'], 2, 'are its own (--disk), not disk.raw'],
    ['with flags for one, and none', ['--agent', '/x', 'disk.raw'], 2, '--agent goes with --qmp'],
    ['with a mode, and none', ['--mode', 'push', 'disk.raw'], 2, '--mode goes with --qmp'],
    ['with bitmaps, and none', ['--keep-bitmaps', '2', 'disk.raw'], 2, '--keep-bitmaps goes with'],
    ['with too many bitmaps', ['--qmp', '/x', '--keep-bitmaps', '101'], 2, 'from 1 to 100.'],
  ])('%s', async (_, args, exit, message) => {
    const { code, stderr } = await runCli(['backup', '--machine', 'web', ...args, repository]);
    expect(stderr).toContain(message);
    expect(code).toBe(exit);
  });

  const X = '/nowhere/qmp';
  test.each([
    ['a monitor and libvirt', ['--qmp', X, '--libvirt', 'web'], '--qmp does not go with --libvirt'],
    ['an agent of libvirt', ['--libvirt', 'web', '--agent', X], '--agent does not go with --lib'],
    ['a server of libvirt', ['--libvirt', 'web', '--nbd', 'nbd://h/'], '--nbd does not go with'],
    ['a URI without libvirt', ['--qmp', X, '--connect', 'qemu:///system'], '--connect goes with'],
    ['another host', ['--libvirt', 'web', '--connect', 'qemu+ssh://h/system'], 'of this host'],
    ['an unknown policy', ['--qmp', X, '--freeze', 'maybe'], '--freeze is require, try, off'],
    ['a freeze without an agent', ['--qmp', X, '--freeze', 'require'], '--freeze require needs'],
    ['an unknown mode', ['--qmp', X, '--mode', 'full'], '--mode is pull or push, not full'],
    ['a push of libvirt', ['--libvirt', 'web', '--mode', 'push'], '--mode push does not go with'],
    ['an unknown compression', ['--qmp', X, '--compress=lz4'], '--compress is deflate or zstd'],
    ['a format', ['--qmp', X, '-f', 'raw'], '--format is for disks at rest'],
    ['no bitmaps', ['--qmp', X, '--no-bitmaps'], '--no-bitmaps is for disks at rest'],
    [
      'a server with an export',
      ['--qmp', X, '--nbd', 'nbd://h/vda'],
      'only where the server listens',
    ],
    ['a server that is none', ['--qmp', X, '--nbd', 'http://h/'], 'http://h/'],
  ])('with %s, and nothing is made', async (_, args, message) => {
    const nothing = join(live.folder, '..', 'nothing');
    const { code, stderr } = await runCli(['backup', '--machine', 'web', ...args, nothing]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
    expect(existsSync(nothing)).toBe(false);
  });

  test('where the machine has no name, or one that cannot be used, and nothing is made', async () => {
    const nothing = join(live.folder, '..', 'nothing');
    const args = ['backup', '--qmp', live.proxy.path, '--disk', 'node:vda'];
    for (const more of [[], ['--machine', 'a b'], ['--machine', 'web', '--max-chain', '501']]) {
      expect((await runCli([...args, ...more, nothing])).code).toBe(2);
      expect(existsSync(nothing)).toBe(false);
    }
    expect((await runCli(['backup', '--qmp', X, '--machine', 'web', nothing])).code).toBe(1);
    expect(existsSync(nothing)).toBe(false);
  });

  test('where the path of its monitor is a file', async () => {
    const file = join(live.folder, '..', 'file');
    writeFileSync(file, 'no socket');
    const { code, stderr } = await runCli([
      'backup',
      '--machine',
      'web',
      '--qmp',
      file,
      repository,
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('cannot connect');
  });

  test('where it has no name and no such disk', async () => {
    const args = ['backup', '--qmp', live.proxy.path, '--disk', 'vdz'];
    const nameless = await runCli([...args, repository]);
    expect(nameless.code).toBe(2);
    expect(nameless.stderr).toContain('--machine NAME');
    const { code, stderr } = await runCli([...args, '--machine', 'web', repository]);
    expect(code).toBe(1);
    expect(stderr).toContain('ERR_MACHINE_DISK');
  });
});
