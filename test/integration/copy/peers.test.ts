/** The copy command between real servers and files; every output is compared by an independent tool. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import type { CopyReport } from '#dist/copy/index.js';
import { run, usePeers } from '../../support/peers.js';
import { QmpConnection } from '../../support/qmp.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
const top = temporaryFolder();
const peers = usePeers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

/** Runs `lacuna copy --json` and returns its report. */
async function copyAndReport(...args: string[]): Promise<CopyReport> {
  const { code, stdout, stderr } = await runCli(['copy', '--json', ...args]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout.trimEnd().split('\n').at(-1) as string);
}

/** Runs qemu-io commands on an image or URI. */
async function qemuIo(format: string, image: string, ...commands: string[]): Promise<void> {
  const output = await run('qemu-io', ['-f', format, ...commands.flatMap((c) => ['-c', c]), image]);
  expect(output).not.toMatch(/failed|error/i);
}

async function expectIdentical(a: string, b: string, formats = ['raw', 'raw']): Promise<void> {
  const output = await run('qemu-img', ['compare', '-f', formats[0], '-F', formats[1], a, b]);
  expect(output).toContain('Images are identical.');
}

/** A qcow2 with data, data that is partly zero, zero clusters, discarded clusters and holes. */
async function makeMixedQcow2(): Promise<string> {
  const image = join(folder, 'mixed.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1G']);
  await qemuIo(
    'qcow2',
    image,
    'write -P 1 0 1M',
    'write -P 2 10M 3M',
    'write -z 12M 512K',
    'write -z 200M 50M',
    'write -P 3 300M 4k',
    'write -P 0 320M 2M',
    'write -P 4 400M 10M',
    'discard 402M 4M',
    'write -P 5 1023M 1M',
  );
  return image;
}

describe('lacuna copy from qemu-nbd', () => {
  test('makes a raw file that is equal, and takes no more space than one of qemu-img convert', async () => {
    const image = await makeMixedQcow2();
    const { uri } = await peers.qemuNbd(['-f', 'qcow2', '--read-only', image]);
    const [ours, theirs] = [join(folder, 'ours.raw'), join(folder, 'theirs.raw')];
    const report = await copyAndReport(uri, ours);
    await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, theirs]);

    await expectIdentical(image, ours, ['qcow2', 'raw']);
    execFileSync('cmp', [ours, theirs]);
    const [mine, reference] = [statSync(ours).blocks, statSync(theirs).blocks];
    expect(Math.abs(mine - reference) / reference).toBeLessThan(0.01);
    expect(report.movedBytes).toBeLessThan(20 * MiB);
  });

  test('works through the single connection that qemu-nbd allows by default', async () => {
    const image = join(folder, 'dense.raw');
    writeFileSync(image, Buffer.alloc(100 * MiB, 'dense'));
    const { uri } = await peers.qemuNbd(['-f', 'raw', image]);
    const report = await copyAndReport(uri, join(folder, 'copy.raw'));
    expect(report.threads).toBe(0);
    await expectIdentical(image, join(folder, 'copy.raw'));
  });

  test('shares the work among connections where the server allows several', async () => {
    const image = join(folder, 'dense.raw');
    writeFileSync(image, Buffer.alloc(100 * MiB, 'dense'));
    const { uri } = await peers.qemuNbd(['-f', 'raw', '--shared=8', image]);
    const report = await copyAndReport('--threads', '3', uri, join(folder, 'copy.raw'));
    expect(report.threads).toBe(3);
    await expectIdentical(image, join(folder, 'copy.raw'));
  });

  test('carries on with fewer connections where the server has no room for all', async () => {
    const image = join(folder, 'dense.raw');
    writeFileSync(image, Buffer.alloc(100 * MiB, 'dense'));
    // One is taken by the plan; of the four workers only one more gets in.
    const { uri } = await peers.qemuNbd(['-f', 'raw', '--shared=2', image]);
    const report = await copyAndReport('--threads', '4', uri, join(folder, 'copy.raw'));
    expect(report.movedBytes).toBe(100 * MiB);
    await expectIdentical(image, join(folder, 'copy.raw'));
  });

  test('writes a qcow2 through qemu-nbd, sparse in and sparse out', async () => {
    const source = join(folder, 'source.raw');
    const target = join(folder, 'target.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'raw', source, '2G']);
    await qemuIo('raw', source, 'write -P 7 5M 64k', 'write -P 8 1G 3M');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', target, '2G']);
    // Old content that has to become zero.
    await qemuIo('qcow2', target, 'write -P 9 100M 8M');
    const server = await peers.qemuNbd(['-f', 'qcow2', '--discard=unmap', target]);
    const report = await copyAndReport(source, server.uri);
    await server.stop();
    // The file system may have allocated a block more than was written.
    expect(report.movedBytes - (3 * MiB + 65536)).toBeLessThanOrEqual(4096);
    await expectIdentical(source, target, ['raw', 'qcow2']);
    await run('qemu-img', ['check', '-q', target]);
  });
});

describe('lacuna copy --context', () => {
  test('moves only the dirty granules of a disk in qemu-storage-daemon', async () => {
    const image = join(folder, 'disk.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '256M']);
    await qemuIo('qcow2', image, 'write -P 1 0 32M', 'write -P 2 100M 20M');
    await run('qemu-img', ['bitmap', '--add', '-g', '65536', image, 'b0']);

    const qmpPath = join(folder, 'qmp.sock');
    const daemon = await peers.storageDaemon([
      '--blockdev',
      `qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename=${image}`,
      '--chardev',
      `socket,id=qmp,path=${qmpPath},server=on,wait=off`,
      '--monitor',
      'chardev=qmp',
      '--export',
      'nbd,id=live,node-name=disk,name=live,writable=on',
    ]);
    const at = (name: string) => daemon.uri.replace(':///?', `:///${name}?`);
    const target = join(folder, 'target.raw');
    const full = await copyAndReport(at('live'), target);
    expect(full.movedBytes).toBe(52 * MiB);

    // The guest goes on: new data, old data, a zeroed and a discarded range.
    await qemuIo(
      'raw',
      at('live'),
      'write -P 3 10M 64k',
      'write -P 4 200M 100k',
      'write -z 104M 1M',
      'discard 110M 2M',
    );
    const qmp = await QmpConnection.open(qmpPath);
    await qmp.execute('block-dirty-bitmap-disable', { node: 'disk', name: 'b0' });
    const exported = { id: 'inc', type: 'nbd', 'node-name': 'disk', name: 'inc', bitmaps: ['b0'] };
    await qmp.execute('block-export-add', exported);

    const context = 'qemu:dirty-bitmap:b0';
    const increment = await copyAndReport('--context', context, at('inc'), target);
    const dirty = JSON.parse(await run('nbdinfo', ['--json', `--map=${context}`, at('inc')]));
    const dirtyBytes = dirty
      .filter((extent: { type: number }) => extent.type === 1)
      .reduce((sum: number, extent: { length: number }) => sum + extent.length, 0);
    console.log(
      `${increment.movedBytes} moved + ${increment.zeroedBytes} zeroed, ${dirtyBytes} dirty`,
    );

    expect(increment.plannedBytes).toBe(dirtyBytes);
    expect(increment.movedBytes).toBe(3 * 65536);
    expect(increment.zeroedBytes).toBe(3 * MiB);
    await qmp.close();
    await daemon.stop();
    await expectIdentical(image, target, ['qcow2', 'raw']);
  });

  test('names the context and the export where the server has no such bitmap', async () => {
    const { uri } = await peers.nbdkit(['memory', '1M']);
    const target = join(folder, 'target.raw');
    writeFileSync(target, Buffer.alloc(MiB));
    const { code, stderr } = await runCli([
      'copy',
      '--context',
      'qemu:dirty-bitmap:no',
      uri,
      target,
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('qemu:dirty-bitmap:no');
    expect(stderr).toContain('ERR_CONTEXT_UNKNOWN');
  });
});

describe('lacuna copy with nbdkit', () => {
  test('copies 100 GiB of sparse random data onto itself, where every wrong write fails', async () => {
    const { uri } = await peers.nbdkit([
      'sparse-random',
      '100G',
      'seed=1',
      'percent=1',
      'runlength=1048576',
    ]);
    const report = await copyAndReport(uri, uri);
    expect(report.movedBytes).toBeGreaterThan(500 * MiB);
    expect(report.movedBytes).toBeLessThan(2000 * MiB);
  });

  test.each([
    ['few large requests', ['--requests', '2', '--request-size', '8M']],
    ['many small requests', ['--requests', '64', '--request-size', '4K']],
    ['one request at a time', ['--requests', '1', '--threads', '0']],
    ['four threads', ['--threads', '4', '--requests', '4']],
  ])('moves every byte to its place with %s', async (_name, flags) => {
    const source = await peers.nbdkit(['pattern', '67108351']);
    const target = join(folder, 'target.raw');
    await copyAndReport(...flags, source.uri, target);
    const reference = join(folder, 'reference.raw');
    await run('nbdcopy', [source.uri, reference]);
    execFileSync('cmp', [reference, target]);
  });

  test.each([
    ['has no extents', ['--filter=noextents']],
    ['has no structured replies', ['--no-sr']],
    ['cannot zero', ['--filter=nozero']],
    ['emulates zeroes slowly', ['--filter=nozero', 'zeromode=emulate']],
    [
      'has block sizes',
      [
        '--filter=blocksize-policy',
        'blocksize-minimum=4096',
        'blocksize-preferred=64K',
        'blocksize-maximum=128K',
        'blocksize-error-policy=error',
      ],
    ],
    [
      'answers late and out of order',
      ['-t', '16', '--filter=delay', 'rdelay=5ms', 'wdelay=5ms', 'delay-extents=5ms'],
    ],
    [
      'fails every status query',
      ['--filter=error', 'error-extents=EIO', 'error-extents-rate=100%'],
    ],
  ])('copies from and to a server that %s', async (_name, flags) => {
    const filters = flags.filter((flag) => flag.startsWith('-') || /^\d+$/.test(flag));
    const parameters = flags.filter((flag) => !filters.includes(flag));
    const image = join(folder, 'image.raw');
    await run('qemu-img', ['create', '-q', '-f', 'raw', image, '64M']);
    await qemuIo('raw', image, 'write -P 1 0 1M', 'write -P 2 30M 3M', 'write -P 3 63M 1M');
    const source = await peers.nbdkit([...filters, 'file', image, ...parameters]);
    const target = await peers.nbdkit([...filters, 'memory', '64M', ...parameters]);
    // Old content, which has to go.
    await qemuIo('raw', target.uri, 'write -P 9 20M 4M');
    const { code, stderr } = await runCli(['copy', source.uri, target.uri]);
    expect([code, stderr.replace(/^lacuna: warning: .*\n/gm, '')]).toEqual([0, '']);
    const result = join(folder, 'result.raw');
    await run('nbdcopy', ['--no-extents', '--request-size=65536', target.uri, result]);
    execFileSync('cmp', [image, result]);
  });
});
