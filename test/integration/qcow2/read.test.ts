/**
 * Images of every kind that QEMU makes, filled by random commands: what we read is what qemu-img reads, byte for
 * byte, and our extents are those of `qemu-img map`. The seed of a failure is in its message; LACUNA_SEED repeats it.
 */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { Context, type ExtentList } from '#dist/extent/index.js';
import { serveDevice } from '../../support/nbd-server.js';
import { run, usePeers } from '../../support/peers.js';
import {
  createImage,
  expectBytes,
  expectSameMap,
  expectSound,
  makeNoise,
  mapOf,
  qemuBytes,
  qemuImg,
  qemuIo,
  qemuMap,
  randomCommands,
  soundImage,
} from '../../support/qemu-images.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const SEED = Random.seed();

const peers = usePeers();
const top = temporaryFolder();
let folder: string;
let random: Random;
let noise: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
  random = new Random(SEED);
  noise = makeNoise(folder, random);
});

function sizeOf(clusterSize: number): number {
  // No multiple of a cluster, and for small clusters with several L2 tables.
  return Math.max(2 * MIB, 12 * clusterSize) + 3 * 512;
}

interface Shape {
  readonly clusterSize: number;
  readonly options?: readonly string[];
  readonly more?: readonly string[];
  readonly size?: number;
  readonly count?: number;
  readonly compressed?: boolean;
  readonly zeroes?: boolean;
}

async function make(name: string, shape: Shape): Promise<string> {
  const { clusterSize, options = [], more, size = sizeOf(clusterSize), count = 40 } = shape;
  const path = join(folder, name);
  const { compressed, zeroes } = shape;
  const work = { size, clusterSize, count, compressed, zeroes, noise };
  return soundImage(random, async (own) => {
    await createImage(path, size, [`cluster_size=${clusterSize}`, ...options], more);
    await qemuIo(path, randomCommands(own, work));
    return path;
  });
}

async function expectSame(path: string): Promise<void> {
  await using device = await openDevice(path);
  const bytes = await qemuBytes(path);
  try {
    await expectBytes(device, bytes);
    expectSameMap(await mapOf(device), await qemuMap(path), bytes);
  } catch (cause) {
    throw new Error(`LACUNA_SEED=${SEED} shows it again: ${(cause as Error).message}`, { cause });
  }
}

/** All that the format has: 512 bytes to 2 MiB. */
const CLUSTERS = Array.from({ length: 13 }, (_, i) => 512 * 2 ** i);

describe('an image reads as qemu-img reads it', () => {
  test.each(CLUSTERS)('version 2 with clusters of %i bytes', async (clusterSize) => {
    const options = ['compat=0.10'];
    await expectSame(await make('a.qcow2', { clusterSize, options, zeroes: false }));
  });

  test.each(CLUSTERS)('version 3 with clusters of %i bytes', async (clusterSize) => {
    await expectSame(await make('a.qcow2', { clusterSize }));
  });

  test.each([1, 2, 4, 8, 32, 64])('refcounts of %i bits', async (bits) => {
    const options = [`refcount_bits=${bits}`, 'lazy_refcounts=on'];
    await expectSame(await make('a.qcow2', { clusterSize: 4 * KIB, options }));
  });

  test.each([16 * KIB, 64 * KIB, 2 * MIB])('subclusters in clusters of %i', async (clusterSize) => {
    const options = ['extended_l2=on'];
    await expectSame(await make('a.qcow2', { clusterSize, options, count: 100, compressed: true }));
  });

  test.each(
    ['zlib', 'zstd'].flatMap((type) => [512, 4 * KIB, 64 * KIB, 2 * MIB].map((c) => [type, c])),
  )('%s, clusters of %i bytes', async (type, clusterSize) => {
    const options = [`compression_type=${type}`];
    const shape = { clusterSize: clusterSize as number, options, compressed: true };
    await expectSame(await make('a.qcow2', shape));
  });

  test.each(['zlib', 'zstd'])('%s, all of it compressed by qemu-img convert', async (type) => {
    const plain = await make('a.qcow2', { clusterSize: 64 * KIB, count: 60 });
    const path = join(folder, 'b.qcow2');
    const options = ['-c', '-o', `compression_type=${type}`];
    await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'qcow2', ...options, plain, path]);
    await expectSame(path);
  });

  test.each([
    ['data_file_raw=off', 'extended_l2=off'],
    ['data_file_raw=on', 'extended_l2=off'],
    ['data_file_raw=off', 'extended_l2=on'],
    ['data_file_raw=on', 'extended_l2=on'],
  ])('a data file with %s and %s', async (...more) => {
    const options = [`data_file=${join(folder, 'data.bin')}`, ...more];
    await expectSame(await make('a.qcow2', { clusterSize: 16 * KIB, options, count: 80 }));
  });

  test.each(
    ['off', 'metadata', 'falloc', 'full'].flatMap((how) => ['off', 'on'].map((l2) => [how, l2])),
  )('preallocation=%s with extended_l2=%s', async (how, extended) => {
    const options = [`preallocation=${how}`, `extended_l2=${extended}`];
    const path = await make('a.qcow2', { clusterSize: 64 * KIB, options, count: 10 });
    await expectSame(path);
  });

  test('an image that was made larger', async () => {
    const path = await make('a.qcow2', { clusterSize: 512 });
    await run('qemu-img', ['resize', '-q', path, '100M']);
    await qemuIo(path, ['write -P 9 99M 1M']);
    await expectSame(path);
  });

  test('an image with large gaps in its L1 table', async () => {
    const path = join(folder, 'a.qcow2');
    await createImage(path, '2G', ['cluster_size=512']);
    await qemuIo(path, ['write -P 1 0 4k', 'write -P 2 600M 4k', 'write -P 3 1800M 4k']);
    await using device = await openDevice(path);
    expect(await mapOf(device)).toEqual(await qemuMap(path));
  });

  test('the map of a disk of 63 TiB with data here and there', async () => {
    const path = join(folder, 'a.qcow2');
    await createImage(path, '63T');
    const places = Array.from({ length: 200 }, () => random.between(0, 63 * 2 ** 24 - 1));
    const commands = places.map((place) => `write -P 1 ${place * 64 * KIB} 4k`);
    await qemuIo(path, [...commands, `write -P 2 ${63 * 2 ** 40 - 4 * KIB} 4k`]);
    await using device = await openDevice(path);
    const map = await mapOf(device);
    expect(map.filter(({ depth }) => depth === 0).length, `LACUNA_SEED=${SEED}`).toBeGreaterThan(
      190,
    );
    expect(map, `LACUNA_SEED=${SEED}`).toEqual(await qemuMap(path));
  });

  test('an empty one, and one of no bytes', async () => {
    await createImage(join(folder, 'a.qcow2'), '1M');
    await expectSame(join(folder, 'a.qcow2'));
    await createImage(join(folder, 'b.qcow2'), 0);
    await using device = await openDevice(join(folder, 'b.qcow2'));
    expect(device.size).toBe(0);
  });
});

describe('a chain reads as qemu-img reads it', () => {
  /** The formats and sizes of a chain, from its base to its top. */
  test.each([
    [['raw 1', 'qcow2 1']],
    [['raw 3', 'qcow2 1']],
    [['raw 1', 'qcow2 3']],
    [['qcow2 1', 'qcow2 3']],
    [['qcow2 3', 'qcow2 1']],
    [['raw 1', 'qcow2 3', 'qcow2 2', 'qcow2 4']],
    [['raw 4', 'qcow2 1', 'qcow2 3', 'qcow2 2', 'qcow2 4']],
    [['qcow2 2', 'qcow2 2', 'qcow2 2', 'qcow2 2', 'qcow2 2']],
  ])('%j', async (layers) => {
    let backing: string[] = [];
    let path = '';
    for (const [i, layer] of layers.entries()) {
      const [format, mebibytes] = layer.split(' ');
      const size = Number(mebibytes) * MIB + 512 * i;
      const clusterSize = random.pick([512, 4 * KIB, 64 * KIB]);
      path = join(folder, `${i}.${format}`);
      if (format === 'raw') writeRaw(path, size);
      else {
        const options =
          clusterSize === 64 * KIB ? [`extended_l2=${random.pick(['on', 'off'])}`] : [];
        const shape = { clusterSize, options, size, count: 20, compressed: true, more: backing };
        await make(`${i}.qcow2`, shape);
      }
      backing = ['-b', `${i}.${format}`, '-F', format];
    }
    await expectSame(path);
    await expectSameDepth(path);
  });

  /** What QEMU's NBD server tells of depths, which is not quite what `qemu-img map` does. */
  async function expectSameDepth(path: string): Promise<void> {
    const { uri } = await peers.qemuNbd(['-f', 'qcow2', '--read-only', '-A', path]);
    const contexts = [Context.depth];
    await using theirs = await openDevice(uri, { contexts });
    await using ours = await openDevice(path);
    const [expected] = await theirs.extents(0, theirs.size, { contexts });
    const [actual] = await ours.extents(0, ours.size, { contexts });
    expect([...actual], `seed ${SEED}`).toEqual([...expected]);
  }

  function writeRaw(path: string, size: number): void {
    const bytes = new Uint8Array(size);
    for (let i = 0; i < 20; i++) {
      const at = random.between(0, size - 1);
      bytes.fill(random.between(1, 255), at, at + random.between(1, 100_000));
    }
    writeFileSync(path, bytes);
  }
});

test('nbdinfo is told the same depths by our server as by QEMU', async () => {
  const base = await make('base.qcow2', { clusterSize: 4 * KIB });
  const middle = await make('middle.qcow2', {
    clusterSize: 4 * KIB,
    count: 20,
    more: ['-b', base, '-F', 'qcow2'],
  });
  const path = await make('top.qcow2', {
    clusterSize: 64 * KIB,
    count: 10,
    size: sizeOf(4 * KIB),
    more: ['-b', middle, '-F', 'qcow2'],
  });
  const { uri: theirs } = await peers.qemuNbd(['-f', 'qcow2', '--read-only', '-A', path]);
  await using device = await openDevice(path);
  const { uri: ours } = await serveDevice(device);
  const [expected, actual] = await Promise.all(
    [theirs, ours].map((uri) => run('nbdinfo', ['--json', `--map=${Context.depth}`, uri])),
  );
  expect(extentsIn(actual), `LACUNA_SEED=${SEED}`).toEqual(extentsIn(expected));
  expect(new Set(extentsIn(actual).map(({ type }) => type))).toEqual(new Set([0, 1, 2, 3]));
});

test('nbdinfo is told the same status by our server as by QEMU, of zeroes with and without a place', async () => {
  const path = join(folder, 'a.qcow2');
  await createImage(path, MIB);
  const zeroes = ['write -z 64k 64k', 'write -z -u 128k 64k', 'write -z 512k 64k'];
  await qemuIo(path, ['write -P 1 0 256k', ...zeroes]);
  const { uri: theirs } = await peers.qemuNbd(['-f', 'qcow2', '--read-only', path]);
  await using device = await openDevice(path);
  const { uri: ours } = await serveDevice(device);
  const [expected, actual] = await Promise.all(
    [theirs, ours].map((uri) => run('nbdinfo', ['--json', '--map', uri])),
  );
  expect(extentsIn(actual)).toEqual(extentsIn(expected));
});

/** What `nbdinfo --map` prints, neighbours of one type as one: an answer may end anywhere. */
function extentsIn(json: string): { offset: number; length: number; type: number }[] {
  const merged: { offset: number; length: number; type: number }[] = [];
  for (const { offset, length, type } of JSON.parse(json)) {
    const last = merged.at(-1);
    if (last !== undefined && last.type === type) last.length += length;
    else merged.push({ offset, length, type });
  }
  return merged;
}

test('every snapshot reads as it was, and the image as it is', async () => {
  const clusterSize = 4 * KIB;
  const size = sizeOf(clusterSize);
  const names = ['one', 'two', 'three'];
  const work = { size, clusterSize, count: 20, compressed: true, noise };
  const grow = async (own: Random) => {
    const made = await make('a.qcow2', { clusterSize, size });
    for (const name of names) {
      await qemuImg(['snapshot', '-c', name, made]);
      await qemuIo(made, randomCommands(own, work));
    }
    return made;
  };
  const path = await soundImage(random, grow, (made) => expectSound(made, names));
  await expectSame(path);
  for (const [i, name] of names.entries()) {
    const bytes = await qemuBytes(path, ['-l', name]);
    const file = { driver: 'file', filename: path } as const;
    for (const snapshot of [name, String(i + 1)]) {
      await using device = await openDevice({ driver: 'qcow2', file, snapshot });
      await expectBytes(device, bytes);
    }
  }
});

test('the status of many ranges of a chain may be asked for at the same time', async () => {
  const size = 64 * MIB;
  const base = await make('base.qcow2', { clusterSize: 4 * KIB, size });
  const more = ['-b', base, '-F', 'qcow2'];
  const path = await make('top.qcow2', { clusterSize: 64 * KIB, size, more });
  const contexts = [Context.allocation, Context.depth];
  const statusOf = (lists: ExtentList[]) => lists.map((list) => [...list]);
  await using device = await openDevice(path);
  const starts = Array.from({ length: 60 }, (_, i) => i * MIB);
  const together = await Promise.all(
    starts.map((start) => device.extents(start, 4 * MIB, { contexts })),
  );
  for (const [i, start] of starts.entries()) {
    const alone = await device.extents(start, 4 * MIB, { contexts });
    expect(statusOf(together[i]), `seed ${SEED}`).toEqual(statusOf(alone));
  }
});
