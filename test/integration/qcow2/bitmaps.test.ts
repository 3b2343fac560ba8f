import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { copy, createQcow2, exportBitmap, openBitmaps, openDevice, resizeQcow2 } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { describe, expect, it } from 'vitest';
import { stepsOr } from '../../support/long-run.js';
import { attachLoopDevice } from '../../support/loop-device.js';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import {
  bitmapsByQemu,
  bitmapsByUs,
  bitmapsOfNode,
  imageDaemon,
} from '../../support/stored-bitmaps.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 2 ** 20;
const peers = usePeers();
let images = 0;
const STEPS = stepsOr(20);

async function newPath(): Promise<string> {
  return join(await peers.folder(), `disk-${images++}.qcow2`);
}

async function newImage(size: number, ...options: string[]): Promise<string> {
  const path = await newPath();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, `${size}`]);
  return path;
}

const byQemu = (path: string) => bitmapsByQemu(peers, path);

async function expectClean(path: string): Promise<void> {
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', path], { encoding: 'utf8' });
  expect([status, stdout + stderr]).toEqual([0, expect.stringContaining('No errors')]);
}

/** Dirty by every rule: nothing, all, runs, scattered bits, and the very end. */
function paint(bitmap: Bitmap, random: Random): void {
  const { size } = bitmap;
  for (let i = random.between(0, 40); i > 0; i--) {
    const offset = random.between(0, size - 1);
    bitmap.set(offset, Math.min(size - offset, random.pick([1, 512, 70_000, 9 * MIB, size])));
  }
  if (random.fraction() < 0.5) bitmap.set(size - 1, 1);
}

/** Stores one bitmap of random dirt, and one that is full. */
async function storeSome(path: string, granularity: number, random: Random): Promise<void> {
  await using image = await openBitmaps(path, { writable: true });
  const { size } = image.bitmaps;
  using bits = new Bitmap({ size, granularity });
  paint(bits, random);
  const disabled = random.fraction() < 0.5;
  image.bitmaps.add({ name: `b${granularity}`, granularity, disabled, persistent: true });
  image.bitmaps.merge(`b${granularity}`, [bits]);
  bits.setAll();
  image.bitmaps.add({ name: `full${granularity}`, granularity, persistent: true });
  image.bitmaps.merge(`full${granularity}`, [bits]);
  await image.store();
}

describe('bitmaps that QEMU stored', () => {
  it.each([
    [65536, 37 * MIB + 512],
    [512, 3 * MIB + 1024],
    [2 * MIB, 300 * MIB],
  ])('are loaded with the same digest, clusters of %i bytes', async (cluster, size) => {
    const path = await newImage(size, '-o', `cluster_size=${cluster}`);
    for (const granularity of [512, 4096, 65536, 2 ** 31]) {
      await run('qemu-img', ['bitmap', '--add', '-g', `${granularity}`, path, `b${granularity}`]);
    }
    await run('qemu-img', ['bitmap', '--add', '--disable', path, 'empty']);
    const commands = ['write 0 4k', `write ${size - 512} 512`, `write ${size / 2 - 512} 1M`];
    await run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((each) => ['-c', each]), path]);
    const ours = await bitmapsByUs(path);
    expect(ours).toHaveLength(5);
    expect(ours).toEqual(await byQemu(path));
  });

  it('are inconsistent after QEMU was killed, and can only be removed', async () => {
    const path = await newImage(16 * MIB);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    const { peer } = await imageDaemon(peers, path);
    const writing = expect(openBitmaps(path, { writable: true })).rejects;
    await writing.toMatchObject({ code: 'ERR_DEVICE_LOCKED' });
    await peer.stop('SIGKILL');
    {
      await using image = await openBitmaps(path, { writable: true });
      expect(image.bitmaps.list()).toMatchObject([{ name: 'b0', inconsistent: true }]);
      await expect(image.load('b0')).rejects.toMatchObject({ code: 'ERR_BITMAP_INCONSISTENT' });
      expect(() => image.bitmaps.clear('b0')).toThrow(/inconsistent/);
      image.bitmaps.add({ name: 'b1', persistent: true });
      await image.store();
    }
    const inconsistent = { name: 'b0', inconsistent: true, recording: false };
    expect(await byQemu(path)).toMatchObject([inconsistent, { name: 'b1' }]);
    const device = await openDevice(path);
    expect(device.capabilities.contexts).not.toContain('qemu:dirty-bitmap:b0');
    await device.close();
    expect((await runCli(['bitmap', 'remove', path, 'b0'])).code).toBe(0);
    expect(await byQemu(path)).toMatchObject([{ name: 'b1' }]);
    await expectClean(path);
  });
});

describe('bitmaps that we stored', () => {
  it.each([512, 4096, 65536, 2 * MIB])('are loaded by QEMU, clusters of %i', async (cluster) => {
    const random = new Random(Random.seed());
    const size = Math.min(2 ** 30, cluster * 4096) + 512;
    const path = await newPath();
    await createQcow2(path, { size, clusterSize: cluster });
    for (const granularity of [512, 4096, 2 ** 20]) {
      await storeSome(path, granularity, random);
      await expectClean(path);
    }
    const ours = await bitmapsByUs(path);
    expect(ours, `LACUNA_SEED=${random.seed}`).toEqual(await byQemu(path));
  });

  it('record what is written to the device, as those of QEMU do', async () => {
    const random = new Random(Random.seed());
    const size = 64 * MIB;
    const [ours, theirs] = [await newImage(size), await newImage(size)];
    for (const path of [ours, theirs]) {
      await run('qemu-img', ['bitmap', '--add', '-g', '512', path, 'fine']);
      await run('qemu-img', ['bitmap', '--add', '-g', '1M', path, 'coarse']);
      await run('qemu-img', ['bitmap', '--add', '--disable', path, 'off']);
    }
    const commands: string[] = [];
    {
      await using device = await openDevice(ours, { writable: true });
      for (let i = 0; i < 60; i++) {
        const offset = random.between(0, size / 512 - 2000) * 512;
        const length = random.between(1, 2000) * 512;
        const kind = random.pick(['write', 'write -z', 'discard']);
        if (kind === 'write') await device.write(offset, new Uint8Array(length).fill(9));
        else if (kind === 'discard') await device.discard(offset, length);
        else await device.zero(offset, length);
        commands.push('-c', `${kind} ${offset} ${length}`);
      }
    }
    await run('qemu-io', ['-f', 'qcow2', ...commands, theirs]);
    const expected = await byQemu(theirs);
    expect(await byQemu(ours), `LACUNA_SEED=${random.seed}`).toEqual(expected);
    await expectClean(ours);
  });

  it('stay as they are while nothing is written, and grow with the disk', async () => {
    const path = await newImage(16 * MIB);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    await run('qemu-img', ['bitmap', '--add', '--disable', '-g', '512', path, 'b1']);
    const before = spawnSync('sha256sum', [path], { encoding: 'utf8' }).stdout;
    {
      await using device = await openDevice(path, { writable: true });
      await device.read(0, new Uint8Array(512));
    }
    expect(spawnSync('sha256sum', [path], { encoding: 'utf8' }).stdout).toBe(before);
    await resizeQcow2(path, 600 * MIB);
    expect(await bitmapsByUs(path)).toEqual(await byQemu(path));
    await expectClean(path);
  });

  it('are inconsistent for QEMU when the writer was killed, but not those that were off', async () => {
    const path = await newImage(16 * MIB);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    await run('qemu-img', ['bitmap', '--add', '--disable', path, 'off']);
    const script = `
      import { openDevice } from 'lacuna';
      const device = await openDevice(process.argv[1], { writable: true });
      await device.write(0, new Uint8Array(512));
      process.kill(process.pid, 'SIGKILL');`;
    spawnSync(process.execPath, ['--input-type=module', '-e', script, path]);
    expect(await byQemu(path)).toMatchObject([
      { name: 'b0', inconsistent: true },
      { name: 'off', digest: expect.any(String) },
    ]);
  });

  it('are the same as those of qemu-img after the same commands', async () => {
    const random = new Random(Random.seed());
    const size = 40 * MIB;
    const [ours, theirs] = [await newImage(size), await newImage(size)];
    const other = await newImage(size);
    await run('qemu-img', ['bitmap', '--add', '-g', '4k', other, 'b0']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 5M 3M', '-c', 'write 33M 4k', other]);
    const names = ['b0', 'b1', 'b2'];
    for (let step = 0; step < STEPS; step++) {
      const kind = random.pick(['add', 'remove', 'clear', 'enable', 'disable', 'merge', 'import']);
      const [name, source] = [random.pick(names), random.pick(names)];
      const granularity = random.pick(['512', '64k', '2M']);
      const [mine, qemu] = commandsFor(kind, { name, source, granularity, ours, theirs, other });
      const a = await runCli(['bitmap', ...mine]);
      const { status } = spawnSync('qemu-img', ['bitmap', ...qemu]);
      expect(a.code, `${mine.join(' ')}: ${a.stderr} LACUNA_SEED=${random.seed}`).toBe(status);
    }
    const expected = await byQemu(theirs);
    expect(await byQemu(ours), `LACUNA_SEED=${random.seed}`).toEqual(expected);
    await expectClean(ours);
  });
});

interface Names {
  name: string;
  source: string;
  granularity: string;
  ours: string;
  theirs: string;
  other: string;
}

function commandsFor(kind: string, names: Names): [string[], string[]] {
  const { name, source, granularity, ours, theirs, other } = names;
  switch (kind) {
    case 'add':
      return [
        ['add', '-g', granularity, ours, name],
        ['--add', '-g', granularity, theirs, name],
      ];
    case 'merge':
      return [
        ['merge', ours, name, source],
        ['--merge', source, theirs, name],
      ];
    case 'import':
      return [
        ['merge', '-b', other, '-F', 'qcow2', ours, name, 'b0'],
        ['--merge', 'b0', '-b', other, '-F', 'qcow2', theirs, name],
      ];
    default:
      return [
        [kind, ours, name],
        [`--${kind}`, theirs, name],
      ];
  }
}

it('change in an image on a block device, too', async () => {
  const loop = attachLoopDevice(32 * MIB, 512);
  if (loop === undefined) expect.fail('no loop device could be attached: run the tests as root');
  try {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', loop.path, `${8 * MIB}`]);
    for (const name of ['b0', 'b1']) {
      const { code, stderr } = await runCli(['bitmap', 'add', '-f', 'qcow2', loop.path, name]);
      expect([code, stderr]).toEqual([0, '']);
    }
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', loop.path]);
    const cleared = await runCli(['bitmap', 'clear', '-f', 'qcow2', loop.path, 'b1']);
    expect([cleared.code, cleared.stderr]).toEqual([0, '']);
    const list = await runCli(['bitmap', 'list', '--json', '-f', 'qcow2', loop.path]);
    expect(JSON.parse(list.stdout)).toMatchObject([{ dirtyBytes: 65536 }, { dirtyBytes: 0 }]);
    expect(await run('qemu-img', ['check', '-f', 'qcow2', loop.path])).toContain('No errors');
  } finally {
    loop.detach();
  }
});

describe('a stored bitmap as a context', () => {
  it('is what qemu-nbd tells of it, and what a copy goes by', async () => {
    const size = 32 * MIB;
    const path = await newImage(size);
    const target = `${path}.raw`;
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 0 8M', path]);
    await copy({ source: path, target });
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    const writes = ['write -P 2 1M 100k', 'write -z 3M 1M', 'discard 5M 1M', 'write -P 3 30M 2M'];
    await run('qemu-io', ['-f', 'qcow2', ...writes.flatMap((each) => ['-c', each]), path]);

    const context = 'qemu:dirty-bitmap:b0';
    const { stdout } = await runCli(['map', '--json', '--context', context, path]);
    const ours = JSON.parse(stdout) as { start: number; length: number; dirty: boolean }[];
    const peer = await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', path]);
    const map = await run('nbdinfo', [`--map=${context}`, '--json', peer.uri]);
    const expected = JSON.parse(map) as { offset: number; length: number; type: number }[];
    expect(ours.map(({ start, length, dirty }) => [start, length, dirty])).toEqual(
      expected.map(({ offset, length, type }) => [offset, length, type === 1]),
    );
    await peer.stop();

    const { stderr, code } = await runCli(['copy', '--context', context, path, target]);
    expect([code, stderr]).toEqual([0, '']);
    expect(await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', path, target])).toContain(
      'identical',
    );
  });

  it('is served to NBD clients', async () => {
    const path = await newImage(8 * MIB);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 1M', path]);
    const socket = `${path}.serve`;
    const served = runCli(['serve', path, '--bitmap', 'b0', '--socket', socket], {
      started: (child) => {
        child.stdout?.once('data', async () => {
          const uri = `nbd+unix:///?socket=${socket}`;
          map = await run('nbdinfo', ['--map=qemu:dirty-bitmap:b0', uri]).catch(String);
          child.kill('SIGTERM');
        });
      },
    });
    let map = '';
    expect((await served).code).toBe(0);
    expect(map.trim().split(/\s*\n\s*/)).toHaveLength(3);
    expect(map).toMatch(/1048576\s+1048576\s+1/);
  });
});

describe('a bitmap as an image', () => {
  it.each([64 * 1024, 512])('gets into a running QEMU, granularity %i', async (granularity) => {
    const random = new Random(Random.seed());
    const size = 48 * MIB;
    using bitmap = new Bitmap({ size, granularity });
    paint(bitmap, random);
    const bits = await newPath();
    await exportBitmap(bits, { bitmap, name: 'from-us' });
    await expectClean(bits);
    const { monitor } = await imageDaemon(peers, await newImage(size));
    await monitor.execute('block-dirty-bitmap-add', { node: 'disk', name: 'live', granularity });
    const file = { driver: 'file', filename: bits };
    const node = { driver: 'qcow2', 'node-name': 'bits', 'read-only': true, file };
    await monitor.execute('blockdev-add', node);
    await monitor.execute('block-dirty-bitmap-merge', {
      node: 'disk',
      target: 'live',
      bitmaps: [{ node: 'bits', name: 'from-us' }],
    });
    await monitor.execute('blockdev-del', { 'node-name': 'bits' });
    const [live] = await bitmapsOfNode(monitor);
    expect(live.digest, `LACUNA_SEED=${random.seed}`).toBe(bitmap.digest());
    await monitor.close();
  });

  it('is made by the command from another image, and replaces nothing', async () => {
    const path = await newImage(8 * MIB);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 1M', path]);
    const target = await newPath();
    expect((await runCli(['bitmap', 'export', path, 'b0', target, '--as', 'x'])).code).toBe(0);
    const [stored] = await bitmapsByUs(path);
    expect(await byQemu(target)).toEqual([{ ...stored, name: 'x', recording: false }]);
    expect((await runCli(['bitmap', 'export', path, 'b0', target])).code).toBe(1);
  });
});

describe('lacuna bitmap', () => {
  it('lists, dumps, and says what cannot be done', async () => {
    const path = await newImage(8 * MIB);
    expect((await runCli(['bitmap', 'list', path])).stdout).toBe('No bitmaps.\n');
    expect((await runCli(['bitmap', 'add', '-g', '4K', path, 'a', '--disabled'])).code).toBe(0);
    expect((await runCli(['bitmap', 'add', path, 'b'])).code).toBe(0);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', path]);
    const { stdout } = await runCli(['bitmap', 'list', '--json', path]);
    expect(JSON.parse(stdout)).toEqual([
      { name: 'a', granularity: 4096, recording: false, inconsistent: false, dirtyBytes: 0 },
      { name: 'b', granularity: 65536, recording: true, inconsistent: false, dirtyBytes: 65536 },
    ]);
    expect((await runCli(['bitmap', 'list', path])).stdout).toMatch(
      /^b +64 KiB +recording +64 KiB/m,
    );
    expect((await runCli(['bitmap', 'dump', path, 'b'])).stdout).toBe('1048576 65536\n');
    const dump = JSON.parse((await runCli(['bitmap', 'dump', '--json', path, 'b'])).stdout);
    expect(dump).toMatchObject({ dirtyBytes: 65536, ranges: [{ start: 1048576, length: 65536 }] });
    const failed = await runCli(['bitmap', 'remove', path, 'a', 'c']);
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining("no bitmap 'c'")]);
    expect(await bitmapsByUs(path)).toHaveLength(2);
    const odd = await runCli(['bitmap', 'add', '-g', '1000', path, 'c']);
    expect([odd.code, odd.stderr]).toEqual([2, expect.stringContaining('power of two')]);
    const raw = await runCli(['bitmap', 'list', '-f', 'raw', path]);
    expect([raw.code, raw.stderr]).toEqual([1, expect.stringContaining('only qcow2 images')]);
    const old = await newImage(8 * MIB, '-o', 'compat=0.10');
    const version = await runCli(['bitmap', 'add', old, 'b']);
    expect([version.code, version.stderr]).toEqual([1, expect.stringContaining('compat=v3')]);
  });
});
