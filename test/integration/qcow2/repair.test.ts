/** Images that QEMU left dirty, with refcounts that it had postponed: made right when they are opened for writing. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { openBitmaps, openDevice, rebase, resizeQcow2 } from 'lacuna';
import { describe, expect, it } from 'vitest';
import { readHeader } from '#dist/block/drivers/qcow2/io/read-header.js';
import { repairRefcounts } from '#dist/block/drivers/qcow2/repair/repair.js';
import { Device } from '#dist/block/index.js';
import { runsOr } from '../../support/long-run.js';
import { run } from '../../support/peers.js';
import { type Keep, PowerCutDisk } from '../../support/power-cut-disk.js';
import { checkImage } from '../../support/qcow2-checker.js';
import { expectRepairable, qemuImg, soundImage } from '../../support/qemu-images.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 2 ** 20;
const SIZE = 6 * MIB + 512;
/** Images of each kind; the seed is printed when one fails. */
const RUNS = runsOr(1);

const folder = temporaryFolder();
let images = 0;

interface Kind {
  readonly options?: string;
  readonly backing?: boolean;
  readonly snapshots?: number;
  readonly bitmaps?: boolean;
  readonly compressed?: boolean;
  /** Bytes of the disk. */
  readonly size?: number;
}

const KINDS: Record<string, Kind> = {
  'plain clusters': {},
  'tiny clusters with wide refcounts': { options: 'cluster_size=512,refcount_bits=64' },
  'refcounts of one bit': { options: 'cluster_size=4k,refcount_bits=1', size: 40 * MIB },
  'subclusters over a backing file': {
    options: 'cluster_size=16k,extended_l2=on',
    backing: true,
  },
  'snapshots and compressed clusters': {
    options: 'cluster_size=4k',
    snapshots: 2,
    compressed: true,
  },
  'bitmaps, and snapshots with subclusters': {
    options: 'cluster_size=32k,extended_l2=on,refcount_bits=8',
    snapshots: 1,
    bitmaps: true,
  },
  'a data file': { options: 'data_file=DATA' },
};

function scribbles(random: Random, size: number, compressed: boolean): string[] {
  const commands: string[] = [];
  for (let i = random.between(3, 25); i > 0; i--) {
    const offset = random.between(0, size / 512 - 1) * 512;
    const length = Math.min(size - offset, random.between(1, 1200) * 512);
    const kind = random.pick(['write -P 5', 'write -P 9', 'write -z', 'discard', 'flush', 'c']);
    if (kind === 'flush') commands.push('-c', kind);
    else if (kind !== 'c') commands.push('-c', `${kind} ${offset} ${length}`);
    else if (compressed) {
      const start = Math.floor(offset / 65_536) * 65_536;
      if (start + 65_536 <= size) commands.push('-c', `write -c -P 3 ${start} 65536`);
    }
  }
  return commands;
}

/** An image that QEMU was writing when it was killed. */
function newDirty(kind: Kind, random: Random): Promise<string> {
  const names = Array.from({ length: kind.snapshots ?? 0 }, (_, i) => `s${i}`);
  const judge = (path: string) => expectRepairable(path, names);
  return soundImage(random, (own) => makeDirty(kind, own, names), judge);
}

async function makeDirty(
  kind: Kind,
  random: Random,
  snapshots: readonly string[],
): Promise<string> {
  const path = join(folder, `disk-${images++}.qcow2`);
  const { size = SIZE, options = '' } = kind;
  const all = `lazy_refcounts=on,${options}`.replace('DATA', `${path}.data`).replace(/,$/, '');
  const args = ['create', '-q', '-f', 'qcow2', '-o', all];
  if (kind.backing) {
    writeFileSync(`${path}.base`, Buffer.alloc(3 * MIB, 7));
    args.push('-b', `${path}.base`, '-F', 'raw');
  }
  await run('qemu-img', [...args, path, `${size}`]);
  const write = (...more: string[]) => {
    const commands = scribbles(random, size, kind.compressed ?? false);
    // Compressed writes over what is allocated fail, and the last one of all kills it.
    spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 0 1k', ...commands, ...more, path]);
  };
  write();
  for (const name of snapshots) {
    await qemuImg(['snapshot', '-c', name, path]);
    write();
  }
  for (const name of kind.bitmaps ? ['a', 'b'] : []) {
    await qemuImg(['bitmap', '--add', '-g', '512', path, name]);
    write();
  }
  // What is allocated anew makes it dirty.
  write('-c', 'discard 1M 64k', '-c', 'write 1M 64k', '-c', 'sigraise 9');
  return path;
}

const isDirty = (content: Buffer) => (content.readBigUInt64BE(72) & 1n) !== 0n;

/** What the disk and its snapshots show. */
async function shown(path: string, { snapshots = 0 }: Kind): Promise<Buffer[]> {
  const disks: Buffer[] = [];
  for (let i = -1; i < snapshots; i++) {
    const raw = join(folder, 'shown.raw');
    await run('qemu-img', ['convert', ...(i < 0 ? [] : ['-l', `s${i}`]), '-O', 'raw', path, raw]);
    disks.push(readFileSync(raw));
  }
  return disks;
}

function expectClean(path: string, seed: number): void {
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', path], { encoding: 'utf8' });
  expect([status, stdout + stderr], `LACUNA_SEED=${seed}`).toEqual([
    0,
    expect.stringContaining('No errors'),
  ]);
}

describe('an image that QEMU was killed over', () => {
  it.each(Object.entries(KINDS))('is repaired with %s', async (_what, kind) => {
    const seed = Random.seed();
    const random = new Random(seed);
    for (let i = 0; i < RUNS; i++) {
      const path = await newDirty(kind, random);
      expect(isDirty(readFileSync(path))).toBe(true);
      const before = await shown(path, kind);
      await (await openDevice(path, { writable: true })).close();
      expect(isDirty(readFileSync(path))).toBe(false);
      expectClean(path, seed);
      const after = await shown(path, kind);
      expect(after.map((disk, at) => disk.equals(before[at]))).toEqual(before.map(() => true));
    }
  });

  it('is written on as any other', async () => {
    const seed = Random.seed();
    const path = await newDirty(KINDS['plain clusters'], new Random(seed));
    const [disk] = await shown(path, {});
    {
      await using device = await openDevice(path, { writable: true });
      await device.write(MIB, Buffer.alloc(3 * MIB, 8));
    }
    disk.fill(8, MIB, 4 * MIB);
    expectClean(path, seed);
    expect((await shown(path, {}))[0].equals(disk)).toBe(true);
  });

  it('is repaired by whatever writes it', async () => {
    const seed = Random.seed();
    const random = new Random(seed);
    const base = join(folder, 'base.raw');
    writeFileSync(base, Buffer.alloc(SIZE));
    const works: ((path: string) => Promise<unknown>)[] = [
      (image) => rebase({ image, backing: { filename: base, format: 'raw' }, unsafe: true }),
      (path) => resizeQcow2(path, SIZE + 512),
      async (path) => {
        await using image = await openBitmaps(path, { writable: true });
        image.bitmaps.add({ name: 'b', persistent: true });
        await image.store();
      },
    ];
    for (const work of works) {
      const path = await newDirty({}, random);
      await work(path);
      expect(isDirty(readFileSync(path))).toBe(false);
      expectClean(path, seed);
    }
  });

  it('is read as it is', async () => {
    const path = await newDirty({}, new Random(Random.seed()));
    const before = readFileSync(path);
    await using device = await openDevice(path);
    await device.read(0, new Uint8Array(512));
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  it('says again of its clusters whether they are alone', async () => {
    const seed = Random.seed();
    const kind = KINDS['snapshots and compressed clusters'];
    const path = await newDirty(kind, new Random(seed));
    const before = await shown(path, kind);
    const bytes = readFileSync(path);
    const l1 = Number(bytes.readBigUInt64BE(40));
    bytes[l1] ^= 0x80;
    const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
    for (let at = l2; at < l2 + 4096; at += 8) {
      const entry = bytes.readBigUInt64BE(at);
      if ((entry & 0x00ff_ffff_ffff_fe00n) !== 0n && (bytes[at] & 0x40) === 0) bytes[at] ^= 0x80;
    }
    writeFileSync(path, bytes);
    await (await openDevice(path, { writable: true })).close();
    expectClean(path, seed);
    expect((await shown(path, kind))[0].equals(before[0])).toBe(true);
  });

  it('gets a refcount block where one is missing', async () => {
    const seed = Random.seed();
    const kind = { options: 'cluster_size=512,refcount_bits=64' };
    const path = await newDirty(kind, new Random(seed));
    const before = await shown(path, kind);
    const bytes = readFileSync(path);
    const table = Number(bytes.readBigUInt64BE(48));
    // The one in the middle of what is used.
    const blocks = [...Array(64).keys()].filter((i) => bytes.readBigUInt64BE(table + i * 8) !== 0n);
    bytes.writeBigUInt64BE(0n, table + blocks[Math.floor(blocks.length / 2)] * 8);
    writeFileSync(path, bytes);
    await (await openDevice(path, { writable: true })).close();
    expectClean(path, seed);
    expect((await shown(path, kind))[0].equals(before[0])).toBe(true);
  });
});

/** Where the first refcount block and the first L2 table of an image are named, and where they lie. */
function placesIn(bytes: Buffer) {
  const entry = (at: number) => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);
  const [refcounts, l1] = [entry(48), entry(40)];
  return { refcounts, l1, l2: entry(l1) };
}

describe('a repair', () => {
  const kind = { options: 'cluster_size=512' };

  it('adds a refcount block behind the end of the file, whoever opens it', async () => {
    const works: ((image: string) => Promise<unknown>)[] = [
      async (path) => (await openDevice(path, { writable: true })).close(),
      (image) => rebase({ image, backing: null, unsafe: true }),
    ];
    for (const work of works) {
      const seed = Random.seed();
      const path = await newDirty(kind, new Random(seed));
      const bytes = readFileSync(path);
      const { refcounts, l2 } = placesIn(bytes);
      let blocks = 0;
      while (bytes.readBigUInt64BE(refcounts + blocks * 8) !== 0n) blocks++;
      // The first cluster that none of the blocks describes is the last one of the file.
      const place = blocks * 256 * 512;
      bytes.writeBigUInt64BE(BigInt(place), l2);
      const longer = Buffer.alloc(place + 512, 4);
      bytes.copy(longer);
      writeFileSync(path, longer);
      await work(path);
      expectClean(path, seed);
      expect((await shown(path, kind))[0].subarray(0, 512)).toEqual(Buffer.alloc(512, 4));
    }
  });

  it('changes nothing of a large image where a block lies in a cluster of the disk', async () => {
    const path = await newDirty(kind, new Random(Random.seed()));
    const bytes = readFileSync(path);
    const { refcounts, l2 } = placesIn(bytes);
    // So far behind the others that it is counted by itself.
    const far = 5 * 2 ** 30;
    bytes.writeBigUInt64BE(BigInt(far), refcounts);
    bytes.writeBigUInt64BE(BigInt(far), l2);
    writeFileSync(path, bytes);
    const fd = openSync(path, 'r+');
    try {
      ftruncateSync(fd, far + 512);
      writeSync(fd, Buffer.alloc(512, 4), 0, 512, far);
      await expect(openDevice(path, { writable: true })).rejects.toMatchObject({
        code: 'ERR_QCOW2_CORRUPT',
        message: expect.stringMatching(/something else uses/),
      });
      const start = Buffer.alloc(bytes.length);
      const data = Buffer.alloc(512);
      readSync(fd, start, 0, start.length, 0);
      readSync(fd, data, 0, 512, far);
      expect([start.equals(bytes), data]).toEqual([true, Buffer.alloc(512, 4)]);
    } finally {
      closeSync(fd);
    }
  });

  it('takes features away that are not known, as their clusters may be free afterwards', async () => {
    const path = await newDirty({ bitmaps: true }, new Random(Random.seed()));
    const bytes = readFileSync(path);
    bytes.writeBigUInt64BE(bytes.readBigUInt64BE(88) | (1n << 40n), 88);
    writeFileSync(path, bytes);
    await (await openDevice(path, { writable: true })).close();
    expect(readFileSync(path).readBigUInt64BE(88)).toBe(1n);
  });

  it('is given up where it is told to, and can be made then', async () => {
    const path = await newDirty({}, new Random(Random.seed()));
    const before = readFileSync(path);
    const abort = new AbortController();
    const disk = new PowerCutDisk(before);
    const driver = disk.driver();
    const read = driver.read;
    driver.read = async (...request) => {
      await read.apply(driver, request);
      // Tables are about to be walked through.
      if (request[1].length > 512) abort.abort();
    };
    const file = new Device(driver);
    const repair = repairRefcounts(file, await readHeader(new Device(disk.driver())), abort.signal);
    await expect(repair).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(isDirty(disk.content)).toBe(true);
    await (await openDevice(path, { writable: true })).close();
    expectClean(path, 0);
  });
});

describe('an image that is damaged as well', () => {
  /** Damages a dirty image, and expects it to be refused and left as it is. */
  async function refused(
    damage: (bytes: Buffer, l2: number) => void,
    message: RegExp,
    kind: Kind = {},
  ) {
    const path = await newDirty(kind, new Random(Random.seed()));
    const bytes = readFileSync(path);
    const l1 = Number(bytes.readBigUInt64BE(40));
    damage(bytes, Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n));
    writeFileSync(path, bytes);
    await expect(openDevice(path, { writable: true })).rejects.toMatchObject({
      code: 'ERR_QCOW2_CORRUPT',
      message: expect.stringMatching(message),
    });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  }

  it('is refused where a cluster lies behind the end', () =>
    refused((bytes, l2) => bytes.writeBigUInt64BE(1n << 40n, l2), /behind the end/));

  it('is refused where a cluster is metadata', () =>
    refused((bytes, l2) => bytes.writeBigUInt64BE(BigInt(l2), l2), /something else uses/));

  it('is refused where a cluster lies on no boundary', () =>
    refused((bytes, l2) => bytes.writeBigUInt64BE(0x50200n, l2), /no start/));

  it('is refused where a table is named twice', () =>
    refused((bytes, l2) => {
      const l1 = Number(bytes.readBigUInt64BE(40));
      bytes.writeUInt32BE(2, 36);
      bytes.writeBigUInt64BE(BigInt(l2), l1 + 8);
    }, /twice/));

  it('is refused where two snapshots have one table', () =>
    refused(
      (bytes) => {
        const first = Number(bytes.readBigUInt64BE(64));
        const names = bytes.readUInt16BE(first + 12) + bytes.readUInt16BE(first + 14);
        const second = first + Math.ceil((40 + bytes.readUInt32BE(first + 36) + names) / 8) * 8;
        bytes.copy(bytes, second, first, first + 12);
      },
      /inside another/,
      { snapshots: 2 },
    ));

  it('is refused where the refcount table is elsewhere', () =>
    refused((bytes) => bytes.writeBigUInt64BE(1n << 40n, 48), /behind the end/));
});

describe('a repair that is cut off', () => {
  const CUT = ['tiny clusters with wide refcounts', 'snapshots and compressed clusters'];

  it.each(CUT)('can be done again: %s', async (what) => {
    const seed = Random.seed();
    const random = new Random(seed);
    const kind = { ...KINDS[what], size: 2 * MIB };
    const path = await newDirty(kind, random);
    const disk = new PowerCutDisk(readFileSync(path));
    const open = (content: PowerCutDisk) => new Device(content.driver());
    const repair = async (file: Device) => repairRefcounts(file, await readHeader(file));
    await repair(open(disk));
    const expected = checkImage(disk.content);
    expect([expected.corruptions, expected.leaks], `LACUNA_SEED=${seed}`).toEqual([[], 0]);

    const cuts: Buffer[] = [];
    disk.forEachCut((_cut, content) => {
      const keeps: Keep[] = [() => true, (isNewest) => isNewest, () => random.fraction() < 0.5];
      cuts.push(...keeps.map(content));
    });
    expect(cuts.length).toBeGreaterThan(10);
    for (const content of cuts) {
      const left = new PowerCutDisk(content);
      if (isDirty(content)) await repair(open(left));
      const { corruptions, leaks, read, readSnapshot } = checkImage(left.content);
      expect([corruptions, leaks], `LACUNA_SEED=${seed}`).toEqual([[], 0]);
      expect(Buffer.compare(read(), expected.read())).toBe(0);
      for (let i = 0; i < (kind.snapshots ?? 0); i++) {
        expect(Buffer.compare(readSnapshot(i), expected.readSnapshot(i))).toBe(0);
      }
    }
    copyFileSync(path, `${path}.theirs`);
    writeFileSync(path, disk.content);
    expectClean(path, seed);
    const theirs = `${path}.theirs`;
    const compared = ['compare', '-f', 'qcow2', '-F', 'qcow2', path, theirs];
    expect(await run('qemu-img', compared), `LACUNA_SEED=${seed}`).toContain('identical');
  });
});
