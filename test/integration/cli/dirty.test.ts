import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const run = promisify(execFile);
const MIB = 2 ** 20;
const CONTEXT = 'qemu:dirty-bitmap:b0';

/** A disk with a full copy, then writes that QEMU notes in a bitmap, one of them of zeroes. */
describe('the command and a dirty bitmap of QEMU', () => {
  const peers = usePeers('suite');
  let folder: string;
  let uri: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lacuna-dirty-'));
    const cwd = { cwd: folder };
    await run('qemu-img', ['create', '-f', 'qcow2', 'disk.qcow2', '64M'], cwd);
    await run('qemu-io', ['-c', 'write -P 1 0 4M', '-c', 'write -P 2 32M 1M', 'disk.qcow2'], cwd);
    await run('qemu-img', ['convert', '-O', 'raw', 'disk.qcow2', 'copy.raw'], cwd);
    await run('qemu-img', ['bitmap', '--add', 'disk.qcow2', 'b0'], cwd);
    const writes = ['write -P 3 1M 64k', 'write -z 32M 512k', 'write -P 4 48M 256k'];
    await run('qemu-io', [...writes.flatMap((write) => ['-c', write]), 'disk.qcow2'], cwd);
    ({ uri } = await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', join(folder, 'disk.qcow2')]));
  });

  afterAll(async () => {
    await peers.stopAll();
    await rm(folder, { recursive: true, force: true });
  });

  test('map shows what is dirty', async () => {
    const { code, stdout } = await runCli(['map', '--json', '--context', CONTEXT, uri]);
    expect(code).toBe(0);
    const extents = JSON.parse(stdout) as Array<{ start: number; length: number; dirty: boolean }>;
    expect(extents.filter(({ dirty }) => dirty)).toEqual([
      { start: MIB, length: 64 * 1024, dirty: true },
      { start: 32 * MIB, length: 512 * 1024, dirty: true },
      { start: 48 * MIB, length: 256 * 1024, dirty: true },
    ]);
  });

  test('map draws a row for each context', async () => {
    const contexts = ['--context', 'base:allocation', '--context', CONTEXT];
    const { stdout } = await runCli(['map', '--picture', '--width', '8', ...contexts, uri]);
    const lines = stdout.split('\n');
    expect(lines[lines.indexOf('base:allocation') + 1]).toBe('+...-.-.');
    expect(lines[lines.indexOf(CONTEXT) + 1]).toBe('-...-.-.');
  });

  test('copy moves what is dirty, and writes as zero what is dirty and zero', async () => {
    const target = join(folder, 'copy.raw');
    expect((await runCli(['compare', uri, target])).code).toBe(1);
    const copied = await runCli(['copy', '--json', '--context', CONTEXT, uri, target]);
    expect(copied.code).toBe(0);
    const report = JSON.parse(copied.stdout.trimEnd().split('\n').at(-1)!);
    expect(report).toMatchObject({ movedBytes: 320 * 1024, zeroedBytes: 512 * 1024 });
    expect((await runCli(['compare', uri, target])).code).toBe(0);
    await run('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', target, uri]);
  });
});
