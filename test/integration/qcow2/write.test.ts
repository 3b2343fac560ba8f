import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, type Qcow2Options, resizeQcow2 } from 'lacuna';
import { Random } from 'lacuna/testing';
import { describe, expect, it } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { Device, type Driver, openDevice } from '#dist/block/index.js';
import { PowerCutDisk } from '../../support/power-cut-disk.js';
import { checkImage } from '../../support/qcow2-checker.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');
const SIZE = 1024 * 1024;

async function create(options: Partial<Qcow2Options> = {}): Promise<void> {
  await createQcow2(path, { size: SIZE, clusterSize: 4096, ...options });
}

/** An image over a driver of the test. */
async function openOver(driver: Driver): Promise<Device> {
  const file = { driver: 'file' as const, filename: path };
  const opening = { above: [], open: async () => new Device(driver) };
  return new Device(await Qcow2Driver.open({ driver: 'qcow2', file, backing: null }, opening));
}

/** Changes bytes of the image's file. */
function patch(offset: number, hex: string): void {
  const bytes = readFileSync(path);
  bytes.write(hex, offset, 'hex');
  writeFileSync(path, bytes);
}

function check(): string {
  return execFileSync('qemu-img', ['check', '-f', 'qcow2', path], { encoding: 'utf8' });
}

async function readAll(device: Device): Promise<Buffer> {
  const bytes = Buffer.alloc(device.size);
  await device.read(0, bytes);
  return bytes;
}

describe('an image that is created', () => {
  it.each<[string, Partial<Qcow2Options>, RegExp]>([
    ['clusters of no power of two', { clusterSize: 1000 }, /power of two, 512 to 2097152/],
    ['clusters too small for subclusters', { extendedL2: true }, /16384 to/],
    ['refcounts of no width', { refcountBits: 3 }, /1, 2, 4, 8/],
    ['too large a disk for its clusters', { size: 2 ** 50 }, /too many for clusters of 4096/],
    ['a size below 0', { size: -1 }, /a size must be a whole number of bytes/],
    ['an unknown preallocation', { preallocation: 'some' as never }, /off, metadata/],
    ['an unknown compression', { compressionType: 'lzo' as never }, /deflate or zstd/],
    ['an unknown version', { version: 4 as never }, /2 or 3/],
  ])('refuses %s', async (_what, options, message) => {
    await expect(create(options)).rejects.toThrow(RangeError);
    await expect(create(options)).rejects.toThrow(message);
  });

  it.each<[string, Partial<Qcow2Options>, RegExp]>([
    ['what version 2 does not know', { version: 2, refcountBits: 8 }, /needs version 3/],
    ['a raw data file where there is no data file', { dataFileRaw: true }, /needs a dataFile/],
    [
      'a raw data file over a backing file',
      { dataFile: 'd', dataFileRaw: true, backing: { filename: 'b', format: 'raw' } },
      /no backing file/,
    ],
    [
      'preallocation that would hide the backing file',
      { preallocation: 'full', backing: { filename: 'b', format: 'raw' } },
      /needs extendedL2/,
    ],
    ['a backing file without its format', { backing: { filename: 'b', format: '' } }, /format/],
  ])('refuses %s', async (_what, options, message) => {
    await expect(create(options)).rejects.toThrow(TypeError);
    await expect(create(options)).rejects.toThrow(message);
  });

  it('is what QEMU would have made of the same options', async () => {
    const extra = { clusterSize: 65_536, compressionType: 'zstd', lazyRefcounts: true } as const;
    await create({ ...extra, refcountBits: 64, extendedL2: true, size: 2 ** 40 });
    const info = () => {
      const json = execFileSync('qemu-img', ['info', '-f', 'qcow2', '--output=json', path]);
      const { 'virtual-size': size, 'format-specific': specific } = JSON.parse(`${json}`);
      return { size, specific };
    };
    const ours = info();
    const options = 'refcount_bits=64,extended_l2=on,compression_type=zstd,lazy_refcounts=on';
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, path, '1T']);
    expect(ours).toEqual(info());
  });

  it('reserves or writes its space when it is told to', async () => {
    const used = async (preallocation: Qcow2Options['preallocation']) => {
      await create({ preallocation });
      expect(check()).toContain('No errors');
      return statSync(path).blocks * 512;
    };
    expect(await used('off')).toBeLessThan(SIZE / 4);
    expect(await used('metadata')).toBeLessThan(SIZE / 4);
    expect(await used('falloc')).toBeGreaterThanOrEqual(SIZE);
    expect(await used('full')).toBeGreaterThanOrEqual(SIZE);
  });

  it('does not replace another file where it must not', async () => {
    writeFileSync(path, 'mine');
    await expect(create({ exclusive: true })).rejects.toMatchObject({ errno: 'EEXIST' });
    expect(readFileSync(path, 'utf8')).toBe('mine');
  });
});

describe('an image that is written', () => {
  it('is refused where it must be repaired first, and changed by nobody', async () => {
    const image = { driver: 'qcow2', file: { driver: 'file', filename: path } } as const;
    for (const [bit, description, found] of [
      // A driver that cannot change a table cannot repair one.
      ['01', { ...image, mapping: 'fixed' }, /was not closed.*lacuna check -r all/],
      ['02', image, /marked as corrupt.*lacuna check -r all/],
    ] as const) {
      await create();
      patch(79, bit);
      const before = readFileSync(path);
      await expect(openDevice(description, { writable: true })).rejects.toThrow(found);
      expect(readFileSync(path).equals(before)).toBe(true);
      await (await openDevice(path)).close();
    }
  });

  it('takes no zeroes for there already where it is opened without its backing file, and its mapping is fixed', async () => {
    const backing = { filename: 'below.qcow2', format: 'qcow2' };
    await create({ backing });
    const file = { driver: 'file', filename: path } as const;
    await using device = await openDevice(
      { driver: 'qcow2', file, backing: null, mapping: 'fixed' },
      { writable: true },
    );
    await expect(device.zero(0, 65536)).rejects.toMatchObject({ code: 'ERR_DEVICE_UNSUPPORTED' });
  });

  it('stays as it is when it is opened and nothing is written', async () => {
    await create();
    patch(95, '80');
    const before = readFileSync(path);
    const device = await openDevice(path, { writable: true });
    await device.read(0, new Uint8Array(512));
    await device.flush();
    await device.close();
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  it('loses the autoclear bits that are not known, before its first write', async () => {
    await create();
    patch(88, '8000000000000080');
    const device = await openDevice(path, { writable: true });
    await device.write(0, Uint8Array.of(1));
    expect(readFileSync(path).readBigUInt64BE(88)).toBe(0n);
    await device.close();
  });

  it('refuses writes when it was opened read-only', async () => {
    await create();
    await using device = await openDevice(path);
    await expect(device.write(0, Uint8Array.of(1))).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNSUPPORTED',
    });
  });

  it('uses clusters again that were discarded, once that is durable', async () => {
    await create();
    const device = await openDevice(path, { writable: true });
    const bytes = new Random(1).bytes(SIZE / 2);
    await device.write(0, bytes);
    await device.flush();
    const { size } = statSync(path);
    for (let i = 0; i < 5; i++) {
      await device.discard(0, SIZE / 2);
      await device.flush();
      await device.write(SIZE / 2, bytes);
      await device.discard(SIZE / 2, SIZE / 2);
      await device.flush();
      await device.write(0, bytes);
    }
    await device.close();
    expect(statSync(path).size).toBe(size);
    expect(check()).toContain('No errors');
  });

  it('gives the space of discarded clusters back', async () => {
    await create({ clusterSize: 65_536 });
    const device = await openDevice(path, { writable: true });
    await device.write(0, new Random(1).bytes(SIZE));
    await device.zero(0, SIZE);
    await device.close();
    expect(statSync(path).blocks * 512).toBeLessThan(SIZE / 2);
  });

  it('refuses a table that leads into its own metadata', async () => {
    await create();
    const device = await openDevice(path, { writable: true });
    await device.write(0, new Uint8Array(4096).fill(1));
    await device.close();
    const bytes = readFileSync(path);
    const table = Number(
      bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0xff_ffff_ffffn,
    );
    patch(table, '8000000000001000');
    const damaged = await openDevice(path, { writable: true });
    await expect(damaged.write(0, Uint8Array.of(1))).rejects.toMatchObject({
      code: 'ERR_QCOW2_CORRUPT',
    });
    await damaged.close();
  });

  it('refuses to use clusters that are wrongly counted as free', async () => {
    await create();
    // The refcounts of the header and the refcount table.
    patch(2 * 4096, '00000000');
    const device = await openDevice(path, { writable: true });
    await expect(device.write(0, Uint8Array.of(1))).rejects.toMatchObject({
      code: 'ERR_QCOW2_CORRUPT',
    });
    await device.close();
  });

  it('flushes what was written while another flush was on its way', async () => {
    await create();
    const disk = new PowerCutDisk(readFileSync(path));
    let writes = 0;
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const driver = disk.driver();
    const write = driver.write!.bind(driver);
    const device = await openOver(
      disk.driver({
        write: async (offset, source, options) => {
          if (++writes === 2) await gate;
          await write(offset, source, options);
        },
      }),
    );
    // Two neighbours that lie apart in the file, and so are written one after the other.
    await device.write(4096, new Uint8Array(4096).fill(1));
    writes = 2;
    await device.write(0, new Uint8Array(4096).fill(1));
    await device.flush();
    writes = 0;
    const writing = device.write(0, new Uint8Array(8192).fill(2));
    await device.flush();
    release();
    await writing;
    await device.flush();
    let left: Buffer = Buffer.alloc(0);
    disk.forEachCut((_entry, content) => {
      left = content(() => false);
    });
    expect(
      checkImage(left)
        .read()
        .subarray(0, 8192)
        .every((byte) => byte === 2),
    ).toBe(true);
    await device.close();
  });

  it('keeps more tables than fit into memory', async () => {
    const span = 2 ** 38;
    const tables = 24;
    await create({ clusterSize: 2 ** 21, extendedL2: true, size: tables * span });
    const random = new Random(5);
    const model = new Map<number, number>();
    const device = await openDevice(path, { writable: true });
    for (let round = 0; round < 12; round++) {
      const requests: Promise<void>[] = [];
      const written = new Set<number>();
      // Tables are dropped and loaded while others are on their way into the file.
      if (random.below(2) === 0) requests.push(device.flush());
      for (let i = 0; i < 30; i++) {
        const offset = random.below(tables) * span + random.below(64) * 65_536;
        const byte = 1 + random.below(255);
        if (written.has(offset)) continue;
        written.add(offset);
        model.set(offset, byte);
        requests.push(device.write(offset, new Uint8Array(512).fill(byte)));
      }
      await Promise.all(requests);
    }
    for (const again of [device, undefined]) {
      const reader = again ?? (await openDevice(path));
      for (const [offset, byte] of model) {
        const found = new Uint8Array(512);
        await reader.read(offset, found);
        assert.ok(
          found.every((value) => value === byte),
          `at ${offset}`,
        );
      }
      await reader.close();
    }
    expect(check()).toContain('No errors');
  });

  it('never shows one guest cluster the bytes of another', async () => {
    await create();
    const disk = new PowerCutDisk(readFileSync(path));
    let release = () => {};
    let waits: Promise<void> | undefined;
    const driver = disk.driver();
    const read = driver.read.bind(driver);
    const slow = disk.driver({
      read: async (offset, target) => {
        const wait = waits;
        waits = undefined;
        await wait;
        await read(offset, target);
      },
    });
    const device = await openOver(slow);
    await device.write(0, new Uint8Array(4096).fill(1));
    await device.flush();
    waits = new Promise((resolve) => {
      release = resolve;
    });
    const target = new Uint8Array(4096);
    const reading = device.read(0, target);
    const others = device
      .discard(0, 4096)
      .then(() => device.flush())
      .then(() => device.write(65_536, new Uint8Array(4096).fill(2)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    release();
    await Promise.all([reading, others]);
    expect(target).toEqual(new Uint8Array(4096).fill(1));
    await device.close();
  });
});

describe('an image whose file cannot be written', () => {
  it.each([1, 2, 3, 4, 5, 6])(
    'stays consistent, and goes on when it can be, seed %d',
    async (seed) => {
      const random = new Random(seed);
      const backing = { clusterSize: random.pick([512, 4096]), refcountBits: 64 };
      await create(backing);
      const disk = new PowerCutDisk(readFileSync(path));
      const driver = disk.driver();
      const write = driver.write!.bind(driver);
      let failing = false;
      const full = disk.driver({
        write: async (offset, source, options) => {
          if (!failing || random.below(4) > 0) return write(offset, source, options);
          throw Object.assign(new Error('full'), { code: 'ERR_DEVICE_IO', errno: 'ENOSPC' });
        },
      });
      const device = await openOver(full);
      const model = Buffer.alloc(SIZE);
      const known = Buffer.alloc(SIZE, 1);
      let failures = 0;
      for (let i = 0; i < 150; i++) {
        failing = i > 20 && i < 130;
        const offset = random.below(SIZE / 512) * 512;
        const length = Math.min(SIZE - offset, 512 * (1 + random.below(40)));
        const kind = random.pick(['write', 'write', 'zero', 'flush']);
        const bytes = kind === 'zero' ? new Uint8Array(length) : random.bytes(length);
        try {
          if (kind === 'write') await device.write(offset, bytes);
          else if (kind === 'zero') await device.zero(offset, length);
          else await device.flush();
          if (kind !== 'flush') {
            model.set(bytes, offset);
            known.fill(1, offset, offset + length);
          }
        } catch (error) {
          expect(error).toMatchObject({ errno: 'ENOSPC' });
          // What a request leaves that failed is not known, and no other byte has changed.
          if (kind !== 'flush') known.fill(0, offset, offset + length);
          failures++;
        }
      }
      expect(failures).toBeGreaterThan(5);
      await device.close();
      const { corruptions, leaks, read } = checkImage(disk.content);
      expect({ corruptions, leaks }).toEqual({ corruptions: [], leaks: 0 });
      const found = read();
      const wrong = model.findIndex((byte, i) => known[i] === 1 && byte !== found[i]);
      expect(wrong).toBe(-1);
    },
  );

  it('is not written any more when a flush has failed', async () => {
    await create();
    const disk = new PowerCutDisk(readFileSync(path));
    let fails = true;
    const broken = disk.driver({
      flush: async () => {
        if (fails) throw Object.assign(new Error('lost'), { code: 'ERR_DEVICE_IO', errno: 'EIO' });
      },
    });
    const device = await openOver(broken);
    await device.write(0, new Uint8Array(4096).fill(1));
    await expect(device.flush()).rejects.toMatchObject({ errno: 'EIO' });
    fails = false;
    await expect(device.flush()).rejects.toThrow(/open it again/);
    await expect(device.write(8192, Uint8Array.of(1))).rejects.toThrow(/open it again/);
    await expect(device.close()).rejects.toThrow(/open it again/);
  });

  it('says so when a device of a fixed size is full', async () => {
    await create();
    const disk = new PowerCutDisk(readFileSync(path));
    const device = await openOver(disk.driver({ size: 16 * 4096 }));
    await expect(device.write(0, new Uint8Array(SIZE).fill(1))).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
      errno: 'ENOSPC',
    });
    await device.close();
    expect(checkImage(disk.content).corruptions).toEqual([]);
  });
});

describe('an image that grows', () => {
  it('shows zeroes in what was added, whatever lies below', async () => {
    const below = join(folder, 'below.raw');
    for (const options of [
      { version: 2 },
      { version: 3 },
      { clusterSize: 512 },
      { clusterSize: 16_384, extendedL2: true },
    ] as const) {
      writeFileSync(below, Buffer.alloc(SIZE, 7));
      const backing = { filename: below, format: 'raw' };
      await create({ size: 100_352, backing, ...options });
      await resizeQcow2(path, 3 * SIZE + 512);
      await using device = await openDevice(path);
      const wanted = Buffer.alloc(3 * SIZE + 512);
      wanted.fill(7, 0, 100_352);
      expect((await readAll(device)).equals(wanted)).toBe(true);
      expect(check()).toContain('No errors');
    }
  });

  it('moves its L1 table when that is too short, and keeps what it held', async () => {
    await create({ clusterSize: 512 });
    const bytes = new Random(3).bytes(SIZE);
    const device = await openDevice(path, { writable: true });
    await device.write(0, bytes);
    await device.close();
    await resizeQcow2(path, 300 * SIZE);
    expect(check()).toContain('No errors');
    await using grown = await openDevice(path);
    expect(grown.size).toBe(300 * SIZE);
    const found = Buffer.alloc(SIZE);
    await grown.read(0, found);
    assert.ok(found.equals(bytes));
  });

  it('never shrinks, nor beyond what its clusters can map', async () => {
    await create();
    await expect(resizeQcow2(path, SIZE - 512)).rejects.toThrow(/can only grow/);
    await expect(resizeQcow2(path, 2 ** 50)).rejects.toThrow(/too many/);
    await expect(resizeQcow2(join(folder, 'x.raw'), SIZE)).rejects.toThrow(TypeError);
  });
});
