/** A point over NBD, as it was or with an overlay, and what changed between two points. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Repository } from 'lacuna/repository';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  change,
  flipBit,
  hashOf,
  hashOfFile,
  imageOf,
  KiB,
  MiB,
  makeImage,
  pointsOf,
} from '../../support/repository.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

/** The server is in this process, which must not wait for a client. */
const run = promisify(execFile);
const folder = temporaryFolder();
const disk = join(folder, 'vda.qcow2');
const second = join(folder, 'vdb.qcow2');
const repository = Repository.open(join(folder, 'repository'), { create: true });
const disks = [
  { name: 'vda', source: disk },
  { name: 'vdb', source: second },
];
const hashes: string[] = [];
let sockets = 0;

beforeAll(async () => {
  makeImage(disk, 4 * MiB);
  makeImage(second, 4 * MiB);
  for (let i = 1; i <= 3; i++) {
    await change(disk, async (device) => {
      await device.write(i * MiB, Buffer.alloc(100 * KiB, i));
      if (i === 3) await device.zero(MiB, 64 * KiB);
    });
    await repository.backup({ machine: 'm', disks });
    hashes.push(hashOf(disk, folder));
  }
});

/** Serves on a socket of its own, and gives the URI of a disk. */
async function listen(served: Awaited<ReturnType<Repository['serve']>>, name = 'vda') {
  await served.server.listen({ type: 'unix', path: join(folder, `s${++sockets}`) });
  return served.server.uri(name);
}

async function copyOf(uri: string): Promise<string> {
  const raw = join(folder, 'served.raw');
  rmSync(raw, { force: true });
  await run('nbdcopy', [uri, raw]);
  return hashOfFile(raw);
}

describe('a point that is served', () => {
  test.each([1, 2, 3])('is what it was (%i), and cannot be written', async (point) => {
    await using served = await repository.serve({ point });
    expect(served.disks).toEqual(['vda', 'vdb']);
    const uri = await listen(served);
    expect(await copyOf(uri)).toBe(hashes[point - 1]);
    const info = JSON.parse((await run('nbdinfo', ['--json', uri])).stdout);
    expect(info.exports[0]).toMatchObject({ is_read_only: true, 'export-size': 4 * MiB });
  });

  test('is the default export where it is a disk alone', async () => {
    await using served = await repository.serve({ point: 'latest', disks: ['vda'] });
    expect(await copyOf(await listen(served, ''))).toBe(hashes[2]);
  });

  test('keeps prune away, and lets backups in', async () => {
    await using _served = await repository.serve({ point: 1 });
    await expect(repository.prune({ keep: { last: 1 } })).rejects.toMatchObject({
      code: 'ERR_REPOSITORY_LOCKED',
    });
    const { point } = await repository.backup({ machine: 'm', disks });
    expect(point.number).toBe(4);
  });

  test('takes writes into an overlay that is thrown away', async () => {
    const before = readFileSync(imageOf(repository, pointsOf(repository, 'm')[2], 'vda'));
    const served = await repository.serve({ point: 3, overlay: 'discard' });
    const uri = await listen(served);
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 9 0 64k', '-c', 'read -P 9 0 64k', uri]);
    await served.close();
    expect(
      readFileSync(imageOf(repository, pointsOf(repository, 'm')[2], 'vda')).equals(before),
    ).toBe(true);
    await using again = await repository.serve({ point: 3, overlay: 'discard' });
    expect(await copyOf(await listen(again))).toBe(hashes[2]);
  });

  test('takes writes into an overlay that is kept, and its point stays with it', async () => {
    const kept = join(folder, 'overlays');
    mkdirSync(kept);
    const overlay = join(kept, 'vda.qcow2');
    const serveIt = () => repository.serve({ point: 3, overlay: { folder: kept }, disks: ['vda'] });
    let served = await serveIt();
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 9 0 64k', await listen(served)]);
    await served.close();
    served = await serveIt();
    await run('qemu-io', ['-f', 'raw', '-c', 'read -P 9 0 64k', await listen(served)]);
    await served.close();
    const written = hashOf(overlay, folder);
    await expect(repository.prune({ machine: 'm', keep: { last: 1 } })).rejects.toThrow(
      /overlays\/vda.qcow2 lies over point 3/,
    );
    // A prune that keeps the point changes nothing of what the overlay shows.
    await repository.prune({ machine: 'm', keep: { last: 2 } });
    expect(hashOf(overlay, folder)).toBe(written);
    await expect(
      repository.serve({ point: 4, overlay: { folder: kept }, disks: ['vda'] }),
    ).rejects.toMatchObject({ code: 'ERR_IMAGE_CHAIN' });
    rmSync(overlay);
    await repository.prune({ machine: 'm', keep: { last: 1 } });
    expect(pointsOf(repository, 'm').map(({ number }) => number)).toEqual([4]);
  });

  test('gives no bytes that differ from those that were backed up', async () => {
    const damaged = join(folder, 'damaged');
    execFileSync('cp', ['-r', repository.path, damaged]);
    const other = Repository.open(damaged);
    const point = pointsOf(other, 'm').at(-1)!;
    const image = imageOf(other, point, 'vda');
    const bytes = readFileSync(image);
    flipBit(image, bytes.indexOf(Buffer.alloc(KiB, 3)), 0);
    await using served = await other.serve({ point: point.number });
    const uri = await listen(served);
    await expect(copyOf(uri)).rejects.toThrow();
  });
});

test('the command serves a point until it is interrupted', async () => {
  const socket = join(folder, 'command');
  let uri = '';
  const ended = runCli(['serve', repository.path, 'm/latest', '--socket', socket, '--json'], {
    started: (child) => {
      child.stdout?.once('data', (text: string) => {
        uri = JSON.parse(text).exports[0].uri;
      });
      void expect
        .poll(() => uri, { timeout: 60_000 })
        .not.toBe('')
        .then(async () => {
          expect(await copyOf(uri)).toBe(hashes[2]);
          child.kill('SIGINT');
        });
    },
  });
  expect(await ended).toMatchObject({ code: 0, stderr: '' });
  expect(uri).toContain('vda');
});

test('a diff tells what changed, in bytes and as a map, without reading a disk', async () => {
  const own = Repository.open(join(folder, 'diff'), { create: true });
  const path = join(folder, 'diff.qcow2');
  makeImage(path, 4 * MiB);
  const one = [{ name: 'vda', source: path }];
  await change(path, (device) => device.write(0, Buffer.alloc(MiB, 1)));
  await own.backup({ machine: 'm', disks: one });
  await change(path, async (device) => {
    await device.write(64 * KiB, Buffer.alloc(64 * KiB, 2));
    await device.zero(128 * KiB, 64 * KiB);
    await device.write(3 * MiB, Buffer.alloc(1, 2));
    // Written, and the same as before.
    await device.write(512 * KiB, Buffer.alloc(64 * KiB, 1));
  });
  await own.backup({ machine: 'm', disks: [...one, { name: 'vdb', source: second }] });
  const report = await own.diff({ from: 1, to: 'latest' });
  expect(report).toEqual({
    machine: 'm',
    from: 1,
    to: 2,
    disks: [
      {
        name: 'vda',
        fromSize: 4 * MiB,
        toSize: 4 * MiB,
        changedBytes: 192 * KiB,
        zeroBytes: 64 * KiB,
        ranges: [
          { offset: 64 * KiB, length: 64 * KiB, isZero: false },
          { offset: 128 * KiB, length: 64 * KiB, isZero: true },
          { offset: 3 * MiB, length: 64 * KiB, isZero: false },
        ],
      },
      { name: 'vdb', fromSize: null, toSize: 4 * MiB, changedBytes: 0, zeroBytes: 0, ranges: [] },
    ],
  });
  expect((await own.diff({ from: 2, to: 2 })).disks[0].ranges).toEqual([]);
});
