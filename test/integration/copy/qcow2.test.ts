/** Copies to new qcow2 images, judged by QEMU. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { type CopyOptions, copy, openDevice } from 'lacuna';
import { Bitmap, BitmapFile } from 'lacuna/bitmap';
import { Random } from 'lacuna/testing';
import { afterEach, describe, expect, test } from 'vitest';
import { Status } from '#dist/extent/index.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Random sources of the second test; the seed is printed when one fails. */
const RUNS = runsOr(12);
const SEED = firstSeed();

const folder = temporaryFolder();
const source = join(folder, 'source.raw');
const target = join(folder, 'target.qcow2');
const peers = usePeers();

afterEach(() => {
  for (const name of readdirSync(folder)) {
    if (name !== 'source.raw') rmSync(join(folder, name), { force: true, recursive: true });
  }
});

/** A sparse raw disk: extents that shrink, that do not, that are zero, on no boundary of anything. */
function makeSource(path: string, random: Random, size: number): void {
  writeFileSync(path, '');
  truncateSync(path, size);
  const file = openSync(path, 'r+');
  for (let i = 0; i < 40; i++) {
    const offset = random.below(size);
    const length = Math.min(size - offset, 1 + random.below(random.pick([600, 5000, 200_000])));
    const bytes = Buffer.from(random.bytes(length));
    const kind = random.pick(['random', 'random', 'text', 'zero']);
    if (kind === 'text') for (const [at, byte] of bytes.entries()) bytes[at] = 97 + (byte % 4);
    if (kind === 'zero') bytes.fill(0);
    writeSync(file, bytes, 0, length, offset);
  }
}

makeSource(source, new Random(7), 12 * MiB);

function qemuImg(...args: string[]): string {
  return execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' });
}

/** No error and no leak, and the same disk. */
function judge(image: string, disk: string, format = 'raw'): void {
  qemuImg('check', '-f', 'qcow2', image);
  qemuImg('compare', '-f', 'qcow2', '-F', format, image, disk);
}

interface Info {
  'cluster-size': number;
  'format-specific': { data: Record<string, unknown> };
}

const info = (image: string) =>
  JSON.parse(qemuImg('info', '-f', 'qcow2', '--output=json', image)) as Info;

describe('a full copy to a new image', () => {
  const KINDS: CopyOptions['image'][] = [
    ...[512, KiB, 4 * KiB, 16 * KiB, 64 * KiB, 256 * KiB, 2 * MiB].map((clusterSize) => ({
      clusterSize,
    })),
    ...([1, 2, 4, 8, 32, 64] as const).map((refcountBits) => ({
      refcountBits,
      clusterSize: refcountBits < 4 ? KiB : 4 * KiB,
    })),
    { version: 2 },
    { version: 2, clusterSize: 512 },
    { extendedL2: true },
    { extendedL2: true, clusterSize: 16 * KiB, refcountBits: 1 },
    { extendedL2: true, clusterSize: 2 * MiB, compressionType: 'zstd' },
    { compressionType: 'zstd' },
    { compressionType: 'zstd', clusterSize: 2 * MiB },
    { lazyRefcounts: true },
  ];

  test.each(KINDS)('is whole, and without a leak: %j', async (image) => {
    const report = await copy({ source, target, image });
    expect(report.warnings).toEqual([]);
    judge(target, source);
    expect(info(target)['cluster-size']).toBe(image?.clusterSize ?? 64 * KiB);
  });

  // Half a minute would go by in clusters of 512 bytes.
  const compressible = KINDS.filter((image) => (image?.clusterSize ?? 65_536) >= 4 * KiB);
  test.each(compressible)(
    'is whole, and without a leak, when it is compressed: %j',
    async (image) => {
      await copy({ source, target, image, compress: true });
      judge(target, source);
      expect(qemuImg('check', target)).not.toMatch(/ 0.00% compressed clusters/);
      const back = join(folder, 'back.raw');
      await copy({ source: target, target: back });
      expect(readFileSync(back).equals(readFileSync(source))).toBe(true);
    },
  );

  test('takes no more space than what QEMU makes of it', async () => {
    await copy({ source, target, compress: true });
    const theirs = join(folder, 'theirs.qcow2');
    qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', source, theirs);
    expect(readFileSync(target).length).toBeLessThan(readFileSync(theirs).length * 1.1);
  });

  test.each(['metadata', 'falloc', 'full'] as const)(
    'maps all that is preallocated: %s',
    async (preallocation) => {
      await copy({ source, target, preallocation });
      judge(target, source);
      const { offset } = JSON.parse(qemuImg('map', '--output=json', target))[0] as {
        offset?: number;
      };
      expect(offset).toBeGreaterThan(0);
    },
  );

  test.each([false, true])('puts its clusters into a data file; raw: %s', async (dataFileRaw) => {
    const data = join(folder, 'data.raw');
    await copy({ source, target, image: { dataFile: data, dataFileRaw } });
    judge(target, source);
    if (dataFileRaw) expect(readFileSync(data).equals(readFileSync(source))).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['data.raw', 'source.raw', 'target.qcow2']);
  });

  test('of random disks, whatever their size', async () => {
    const disk = join(folder, 'random.raw');
    for (let seed = SEED; seed < SEED + RUNS; seed++) {
      const random = new Random(seed);
      makeSource(disk, random, 1 + random.below(6 * MiB));
      const image = {
        clusterSize: random.pick([512, 4096, 65_536, MiB]),
        version: random.pick([2, 3, 3] as const),
      };
      const compress = image.clusterSize > 512 && random.below(2) === 0;
      const detectZeroes = random.pick(['off', 'on', 'unmap', undefined] as const);
      const options = { image, compress, detectZeroes };
      try {
        await copy({ source: disk, target, ...options });
        judge(target, disk);
      } catch (cause) {
        throw new Error(`LACUNA_SEED=${seed} finds it: ${JSON.stringify(options)}`, { cause });
      }
    }
  });

  test('lays clusters out in the order of the disk, and lets the kernel copy into them', async () => {
    const trace = join(folder, 'trace');
    const hasTrace = spawnSync('strace', ['-V']).status === 0;
    const main = new URL('../../../dist/cli/main.js', import.meta.url).pathname;
    const command = [process.execPath, main, 'copy', source, target];
    const [program, ...args] = hasTrace ? ['strace', '-f', '-o', trace, ...command] : command;
    execFileSync(program, args, { stdio: 'pipe' });
    judge(target, source);
    const map = JSON.parse(qemuImg('map', '--output=json', target)) as { offset?: number }[];
    const offsets = map.flatMap(({ offset }) => (offset === undefined ? [] : [offset]));
    expect(offsets).toEqual([...offsets].sort((a, b) => a - b));
    if (hasTrace) expect(readFileSync(trace, 'utf8')).toContain('copy_file_range');
  });

  test('from an image, a chain of images, and a server; in threads', async () => {
    const base = join(folder, 'base.qcow2');
    const top = join(folder, 'top.qcow2');
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', source, base);
    qemuImg('create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top);
    execFileSync('qemu-io', ['-c', 'write -P 5 1M 300k', '-c', 'write -z 4M 1M', top], {
      stdio: 'pipe',
    });
    await copy({ source: top, target, threads: 2 });
    judge(target, top, 'qcow2');
    expect(qemuImg('info', target)).not.toContain('backing file');
    const { uri } = await peers.nbdkit(['file', source]);
    const report = await copy({ source: uri, target, threads: 3, verify: true });
    expect(report.threads).toBe(3);
    judge(target, source);
  });

  test('is made in order, and with a digest, where the caller asks for it', async () => {
    const { digest } = await copy({
      source,
      target,
      digest: true,
      image: { clusterSize: 4 * KiB },
    });
    judge(target, source);
    await copy({ source, target, sequential: true, compress: true, requestSize: 4 * KiB });
    judge(target, source);
    expect(digest).toBe((await copy({ source: target, target: 'null:', digest: true })).digest);
  });

  test('replaces what is there, and only when it is whole', async () => {
    writeFileSync(target, 'something else');
    await expect(copy({ source, target, image: { clusterSize: 1000 } })).rejects.toThrow(
      /clusterSize/,
    );
    expect(readFileSync(target, 'utf8')).toBe('something else');
    await copy({ source, target });
    judge(target, source);
    expect(readdirSync(folder).sort()).toEqual(['source.raw', 'target.qcow2']);
  });
});

describe('an increment as an image over its base', () => {
  const base = join(folder, 'base.qcow2');
  const live = join(folder, 'live.qcow2');

  /** A disk, its older state, and a bitmap of what has changed since. */
  async function serveLive(): Promise<string> {
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', source, base);
    // Clusters of the base that hold little, where the disk will be zero.
    const little = [...Array(20).keys()].flatMap((i) => ['-c', `write -P 1 ${3100 + i * 90}K 1k`]);
    execFileSync('qemu-io', [...little, base], { stdio: 'pipe' });
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', base, join(folder, 'base.raw'));
    copyFileSync(base, live);
    qemuImg('bitmap', '--add', '-g', '4k', live, 'b0');
    const writes = ['-P 7 1M 10k', '-P 9 6M 200k', '-z 3M 2M', '-P 3 3000K 1k'];
    execFileSync('qemu-io', [...writes.flatMap((write) => ['-c', `write ${write}`]), live], {
      stdio: 'pipe',
    });
    const peer = await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', live]);
    return peer.uri;
  }

  const backing = { filename: 'base.qcow2', format: 'qcow2' };

  test.each([
    { backing },
    { backing, clusterSize: 4 * KiB },
    { backing, clusterSize: 512, version: 2 as const },
    { backing, extendedL2: true },
    { backing: { filename: 'base.raw', format: 'raw' } },
  ])('holds what is dirty, and nothing else: %j', async (image) => {
    const uri = await serveLive();
    for (const compress of [false, true]) {
      if (compress && image.clusterSize === 512) continue;
      await copy({ source: uri, target, image, compress, context: 'qemu:dirty-bitmap:b0' });
      judge(target, live, 'qcow2');
      const report = JSON.parse(qemuImg('map', '--output=json', target)) as {
        length: number;
        depth: number;
        data: boolean;
      }[];
      const own = report.filter(({ depth, data }) => depth === 0 && data);
      const held = own.reduce((sum, { length }) => sum + length, 0);
      // What is dirty and zero is zero here as well, without being held; version 2 cannot say that.
      expect(held).toBeLessThan(image.version === 2 ? 3 * MiB : 400 * KiB);
    }
  });

  test.each([
    [512, 12 * MiB],
    [64 * KiB, 5 * MiB + 512],
    [2 * MiB, 12 * MiB],
  ])('is filled from the base where it is clean: clusters of %i', async (clusterSize, below) => {
    const random = new Random(SEED);
    const older = join(folder, 'base.raw');
    makeSource(older, random, below);
    const wanted = Buffer.alloc(12 * MiB);
    const now = readFileSync(source);
    for (const granularity of [512, 4 * KiB, 256 * KiB]) {
      readFileSync(older).copy(wanted.fill(0));
      const bitmap = new Bitmap({ size: 12 * MiB, granularity });
      for (let i = 0; i < 60; i++) {
        const offset = random.below(12 * MiB);
        bitmap.set(
          offset,
          Math.min(12 * MiB - offset, 1 + random.below(random.pick([1, 300_000]))),
        );
      }
      for (const { offset, length } of bitmap.ranges())
        now.copy(wanted, offset, offset, offset + length);
      const image = { clusterSize, backing: { filename: 'base.raw', format: 'raw' } };
      for (const threads of [0, 2]) {
        await copy({ source, target, bitmap, image, threads });
        writeFileSync(join(folder, 'wanted.raw'), wanted);
        judge(target, join(folder, 'wanted.raw'));
      }
    }
  });

  test('is filled from a base in another folder, whose own backing file lies beside the image', async () => {
    mkdirSync(join(folder, 'older'));
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', source, base);
    const middle = join(folder, 'older', 'middle.qcow2');
    qemuImg('create', '-f', 'qcow2', '-b', '../base.qcow2', '-F', 'qcow2', middle);
    using bitmap = new Bitmap({ size: 12 * MiB, granularity: 4 * KiB });
    bitmap.set(MiB, 4 * KiB);
    const image = { backing: { filename: 'older/middle.qcow2', format: 'qcow2' } };
    await copy({ source, target, bitmap, image });
    judge(target, source);
  });

  test('of the top layer, by the command', async () => {
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', source, base);
    qemuImg('create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', live);
    execFileSync('qemu-io', ['-c', 'write -P 5 1M 300k', live], { stdio: 'pipe' });
    const flags = ['--mode', 'top', '-B', 'base.qcow2', '-F', 'qcow2', '-o', 'cluster_size=16k'];
    const { code, stderr } = await runCli(['copy', ...flags, live, target]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    judge(target, live, 'qcow2');
    expect(info(target)).toMatchObject({
      'backing-filename': 'base.qcow2',
      'cluster-size': 16_384,
    });
  });

  test('is refused where it makes no sense', async () => {
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', source, base);
    const full = copy({ source, target, image: { backing } });
    await expect(full).rejects.toThrow(/a full copy holds all of the disk/);
    const onto = copy({ source, target: base, image: { backing }, mode: 'top' });
    await expect(onto).rejects.toThrow(/its own backing file/);
    const missing = { backing: { filename: 'gone.qcow2', format: 'qcow2' } };
    await expect(copy({ source, target, image: missing, mode: 'top' })).rejects.toThrow(/gone/);
    expect(readdirSync(folder).sort()).toEqual(['base.qcow2', 'source.raw']);
  });
});

describe('a copy with options that exclude each other', () => {
  test.each<[Partial<CopyOptions>, RegExp]>([
    [{ compress: true, preallocation: 'metadata' }, /cannot be compressed/],
    [{ compress: true, image: { dataFile: 'd' } }, /cannot be compressed/],
    [{ compress: true, resume: join(folder, 'resume') }, /cannot be resumed/],
    [{ target: join(folder, 'x.raw'), compress: true }, /only qcow2 images/],
    [{ target: join(folder, 'x.raw'), image: { version: 2 } }, /not a qcow2 image/],
    [{ target: 'null:', image: { version: 2 } }, /not a qcow2 image/],
    [{ target: join(folder, 'x.raw'), preallocation: 'metadata' }, /preallocation must be/],
    [{ target: source, targetFormat: 'qcow2' }, /the source itself/],
  ])('is refused, and leaves nothing: %j', async (options, message) => {
    await expect(copy({ source, target, ...options })).rejects.toThrow(message);
    expect(readdirSync(folder).filter((name) => name !== 'resume')).toEqual(['source.raw']);
  });

  test.each([
    [['-o', 'cluster_size=3k'], /cluster_size/],
    [['-o', 'compat=4'], /0\.10, v2, 1\.1, v3/],
    [['-o', 'encryption=on'], /no such option/],
    [['-F', 'raw'], /-B/],
    [['-B', 'base.raw'], /-F/],
  ])('is misuse of the command: %j', async (flags, message) => {
    const { code, stderr } = await runCli(['copy', ...flags, source, target]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

describe('a copy that dies', () => {
  /** Runs a copy that stands still after its first piece, for more than an hour, and kills it there. */
  async function killed(flags: readonly string[], resume?: string): Promise<void> {
    const noted = resume === undefined ? [] : ['--resume', resume];
    const args = ['copy', '--json', '--rate', '1', ...flags, ...noted, source, target];
    const { code } = await runCli(args, {
      started: (child) => {
        let told = '';
        child.stdout?.on('data', (text) => {
          told += text;
        });
        const hasBegun = () =>
          /"doneBytes":[1-9]/.test(told) && (resume === undefined || isConfirmed(resume));
        void signalWhen(child, 'SIGKILL', hasBegun);
      },
    });
    expect(code).toBe(null);
  }

  /** Whether a resume file says that a part of its copy is done, durably. */
  function isConfirmed(resume: string): boolean {
    const file = BitmapFile.open(resume, { readOnly: true });
    try {
      if (file.bitmaps.length === 0) return false;
      const { totalBytes } = JSON.parse(file.identity) as { totalBytes: number };
      using data = file.load('data');
      using zero = file.load('zero');
      return data.dirtyBytes + zero.dirtyBytes < totalBytes;
    } finally {
      file.close();
    }
  }

  test.each([[[]], [['-c']], [['-o', `data_file=${join(folder, 'data.raw')}`]]])(
    'leaves no image: %j',
    async (flags) => {
      await killed(flags);
      const left = readdirSync(folder).filter((name) => name !== basename(source));
      expect(left.length).toBeGreaterThan(0);
      expect(left.filter((name) => !name.includes('.partial'))).toEqual([]);
    },
  );

  test('goes on from its resume file, into the image that it laid out', async () => {
    const resume = join(folder, 'resume');
    await killed([], resume);
    const [partial] = readdirSync(folder).filter((name) => name.includes('.partial-'));
    qemuImg('check', '-f', 'qcow2', join(folder, partial));
    const other = copy({ source, target, resume, image: { clusterSize: 4096 } });
    await expect(other).rejects.toThrow(/format/);
    const report = await copy({ source, target, resume });
    judge(target, source);
    expect(readdirSync(folder).sort()).toEqual(['source.raw', 'target.qcow2']);
    expect(report.plannedBytes).toBeGreaterThan(0);
  });
});

describe('a fixed mapping', () => {
  const fixed = { driver: 'qcow2', file: { driver: 'file', filename: target } } as const;

  test('takes writes from several openings, and refuses what would change it', async () => {
    await copy({ source, target, preallocation: 'metadata' });
    const before = readFileSync(target).subarray(0, 64 * KiB);
    await using one = await openDevice({ ...fixed, mapping: 'fixed' }, { writable: true });
    await using two = await openDevice(one.description!, { writable: true });
    await Promise.all([
      one.write(MiB, Buffer.alloc(100_000, 1)),
      two.write(3 * MiB + 5, Buffer.alloc(100_000, 2)),
    ]);
    await one.zero(9 * MiB, MiB);
    await Promise.all([one.flush(), two.flush()]);
    const found = Buffer.alloc(100_000);
    await one.read(3 * MiB + 5, found);
    expect(found.equals(Buffer.alloc(100_000, 2))).toBe(true);
    expect(one.capabilities).toMatchObject({ multiConnection: true, discard: false });
    expect(
      readFileSync(target)
        .subarray(0, 64 * KiB)
        .equals(before),
    ).toBe(true);
    await Promise.all([one.close(), two.close()]);
    qemuImg('check', '-f', 'qcow2', target);
  });

  test('refuses clusters that are not there, and zeroes what is zero anyway', async () => {
    await copy({ source, target });
    await using device = await openDevice({ ...fixed, mapping: 'fixed' }, { writable: true });
    const [list] = await device.extents(0, device.size);
    const holes = [...Array(list.count).keys()].filter((i) => list.flagsAt(i) & Status.hole);
    const hole = list.startAt(holes[0]);
    const write = device.write(hole, Buffer.alloc(512, 1));
    await expect(write).rejects.toMatchObject({ code: 'ERR_DEVICE_UNSUPPORTED' });
    await device.zero(hole, 512);
    await device.close();
    judge(target, source);
  });

  test('is refused for images with snapshots or bitmaps', async () => {
    await copy({ source, target });
    qemuImg('bitmap', '--add', target, 'b0');
    const open = () => openDevice({ ...fixed, mapping: 'fixed' }, { writable: true });
    await expect(open()).rejects.toThrow(/bitmaps/);
    qemuImg('bitmap', '--remove', target, 'b0');
    qemuImg('snapshot', '-c', 's', target);
    await expect(open()).rejects.toThrow(/snapshots/);
  });
});
