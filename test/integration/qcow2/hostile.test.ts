/** Images that want to be believed: whoever makes an image chooses every byte of it, and every name in it. */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { LacunaError } from 'lacuna/errors';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Device, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { run } from '../../support/peers.js';
import {
  createImage,
  expectBytes,
  qemuBytes,
  qemuIo,
  readWhole,
} from '../../support/qemu-images.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const CLUSTER = 65_536;
const top = temporaryFolder();
let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
  path = join(folder, 'a.qcow2');
});

/** Changes bytes of a file. */
function patch(file: string, change: (view: DataView, bytes: Uint8Array) => void): void {
  const bytes = readFileSync(file);
  change(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), bytes);
  writeFileSync(file, bytes);
}

/** Opens a device and reads all of it; the code and message of what it fails with. */
async function failure(source: string | DeviceDescription): Promise<LacunaError | undefined> {
  try {
    await using device = await openDevice(source);
    await readWhole(device);
    await device.extents(0, device.size);
  } catch (error) {
    return error as LacunaError;
  }
  return undefined;
}

async function backed(name: string, format = 'raw'): Promise<void> {
  await createImage(path, '1M', [], ['-u', '-b', name, '-F', format]);
}

describe('a backing file is not followed', () => {
  test.each([
    ['an absolute name', () => join(top, 'secret.raw')],
    ['a name that goes up', () => '../secret.raw'],
    ['a name that goes up and down', () => 'x/../../secret.raw'],
    ['a link that leads away', () => 'link.raw'],
    ['a device', () => '/dev/null'],
  ])('by %s', async (_what, name) => {
    writeFileSync(join(top, 'secret.raw'), Buffer.alloc(MIB, 7));
    mkdirSync(join(folder, 'x'));
    symlinkSync('../secret.raw', join(folder, 'link.raw'));
    await backed(name());
    const error = await failure(path);
    expect(error).toMatchObject({ code: 'ERR_IMAGE_CHAIN', device: path });
    expect(error?.message).toMatch(/lies outside .*backing-folders/);
  });

  test.each([
    'json:{"driver":"null-co"}',
    'nbd://localhost/x',
    'nbd:localhost:1',
    'file:x',
    'fd:1',
  ])('by %s', async (name) => {
    await createImage(path, '1M', [], ['-u', '-b', 'x', '-F', 'raw']);
    await run('qemu-img', ['rebase', '-u', '-F', 'raw', '-b', name, path]);
    const error = await failure(path);
    expect(error).toMatchObject({ code: 'ERR_IMAGE_CHAIN' });
    expect(error?.message).toMatch(/is not the name of a file.*"backing"/);
  });

  test('without a format, which is never guessed', async () => {
    await createImage(join(folder, 'base.qcow2'), '1M');
    await backed('base.qcow2', 'qcow2');
    patch(path, (view) => {
      for (let at = 112; at < 1024; at += 8) {
        if (view.getUint32(at) === 0xe2792aca) view.setUint32(at, 0x11111111);
      }
    });
    expect((await failure(path))?.message).toMatch(/no format.*qemu-img rebase -u/);
  });

  test('of a format that is not known', async () => {
    writeFileSync(join(folder, 'base.vmdk'), 'x');
    await backed('base.vmdk', 'vmdk');
    expect((await failure(path))?.message).toMatch(/format vmdk.*qemu-nbd/);
  });

  test('that is not there', async () => {
    await backed('gone.raw');
    expect((await failure(path))?.message).toMatch(/gone\.raw.*is not there/);
  });

  test('that is the image itself, or comes back to it', async () => {
    await backed('a.qcow2', 'qcow2');
    expect((await failure(path))?.message).toMatch(/circle/);
    await createImage(join(folder, 'b.qcow2'), '1M', [], ['-u', '-b', 'a.qcow2', '-F', 'qcow2']);
    await run('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', 'b.qcow2', path]);
    expect(await failure(path)).toMatchObject({ code: 'ERR_IMAGE_CHAIN' });
  });

  test('below more than 200 others', async () => {
    await createImage(join(folder, '0.qcow2'), '1M');
    for (let i = 1; i <= 201; i++) {
      const image = join(folder, `${i}.qcow2`);
      copyFileSync(i === 1 ? join(folder, '0.qcow2') : join(folder, '1.qcow2'), image);
      const below = ['-b', `${i - 1}.qcow2`, '-F', 'qcow2'];
      if (i === 1) await run('qemu-img', ['rebase', '-u', ...below, image]);
      else patchName(image, `${i - 1}.qcow2`);
    }
    expect(await failure(join(folder, '200.qcow2'))).toBeUndefined();
    expect((await failure(join(folder, '201.qcow2')))?.message).toMatch(/more than 200/);
  });

  function patchName(image: string, name: string): void {
    patch(image, (view, bytes) => {
      bytes.set(new TextEncoder().encode(name), Number(view.getBigUint64(8)));
      view.setUint32(16, name.length);
    });
  }
});

describe('a backing file is followed', () => {
  beforeEach(() => {
    writeFileSync(join(top, 'base.raw'), Buffer.alloc(MIB, 7));
  });

  test('where the caller allows its folder', async () => {
    await backed('../base.raw');
    const file = { driver: 'file', filename: path } as const;
    await using device = await openDevice({ driver: 'qcow2', file, 'backing-folders': [top] });
    expect((await readWhole(device)).equals(Buffer.alloc(MIB, 7))).toBe(true);
    const again = await openDevice(device.description as DeviceDescription);
    expect((await readWhole(again)).equals(Buffer.alloc(MIB, 7))).toBe(true);
    await again.close();
  });

  test('not further than the image at the top allows', async () => {
    mkdirSync(join(folder, 'sub'));
    await createImage(
      join(folder, 'sub', 'b.qcow2'),
      '1M',
      [],
      ['-u', '-b', '../../base.raw', '-F', 'raw'],
    );
    await backed('sub/b.qcow2', 'qcow2');
    expect((await failure(path))?.message).toMatch(/base\.raw.*lies outside/);
  });

  test('where the caller says it, or not at all where he says null', async () => {
    await backed('nbd://localhost/x');
    const image = { driver: 'qcow2', file: { driver: 'file', filename: path } } as const;
    const backing = { driver: 'file', filename: join(top, 'base.raw') } as const;
    await using said = await openDevice({ ...image, backing });
    expect((await readWhole(said)).equals(Buffer.alloc(MIB, 7))).toBe(true);
    await using none = await openDevice({ ...image, backing: null });
    expect((await readWhole(none)).equals(Buffer.alloc(MIB))).toBe(true);
  });
});

describe('a data file is not followed', () => {
  async function withDataFile(): Promise<void> {
    await createImage(path, '1M', [`data_file=${join(folder, 'data.raw')}`]);
    await qemuIo(path, ['write -P 7 0 128k']);
  }

  test('outside the folder, by whatever name', async () => {
    writeFileSync(join(top, 'secret.raw'), Buffer.alloc(MIB, 7));
    await withDataFile();
    const named = join(folder, 'data.raw');
    patch(path, (_view, bytes) => {
      const at = Buffer.from(bytes).indexOf(named);
      const other = `${join(folder, '..', 'secret.raw')}`.padStart(named.length, '/');
      bytes.set(new TextEncoder().encode(other.slice(0, named.length)), at);
    });
    expect(await failure(path)).toMatchObject({ code: 'ERR_IMAGE_CHAIN' });
  });

  test('that is the image itself', async () => {
    await withDataFile();
    const file = { driver: 'file', filename: path } as const;
    const error = await failure({ driver: 'qcow2', file, 'data-file': file });
    expect(error?.message).toMatch(/image of this chain itself/);
  });

  test('of an image that has none', async () => {
    await createImage(path, '1M');
    const file = { driver: 'file', filename: path } as const;
    const error = await failure({ driver: 'qcow2', file, 'data-file': file });
    expect(error?.message).toMatch(/leave out "data-file"/);
  });
});

describe('tables that cannot be are refused', () => {
  beforeEach(async () => {
    await createImage(path, '64M');
    await qemuIo(path, ['write -P 7 0 1M']);
  });

  test('an L1 table behind the end of the file', async () => {
    patch(path, (view) => view.setBigUint64(40, 2n ** 40n));
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });

  test('an L1 table of 32 MiB that the file does not have takes no memory', async () => {
    patch(path, (view, bytes) => {
      view.setUint32(36, 2 ** 22);
      view.setBigUint64(40, BigInt(Math.ceil(bytes.length / CLUSTER) * CLUSTER));
    });
    const before = process.memoryUsage().arrayBuffers;
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
    const file = { driver: 'file', filename: path } as const;
    await using device = await openDevice({ driver: 'qcow2', file, rescue: true });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * MIB);
    expect(device.missing).toEqual([{ offset: 0, length: device.size }]);
    expect((await readWhole(device)).every((byte) => byte === 0)).toBe(true);
  });

  test.each([
    ['on the L1 table itself', (view: DataView) => view.getBigUint64(40)],
    ['behind the end of the file', () => 2n ** 45n],
    ['inside a cluster', () => 0x10200n],
  ])('an L2 table that lies %s', async (_what, place) => {
    patch(path, (view) => {
      view.setBigUint64(Number(view.getBigUint64(40)), place(view) | (1n << 63n));
    });
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });

  test('a cluster that is no cluster', async () => {
    patchEntry((view, at) => view.setUint32(at + 4, view.getUint32(at + 4) | 0x1000));
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });

  test('a subcluster that is data and zero at once, which QEMU 7.2 may leave and does not read either', async () => {
    await createImage(path, '64M', ['extended_l2=on']);
    await qemuIo(path, ['write -P 7 0 1M']);
    // The first half of a bitmap says what is zero, the second what is data.
    patchEntry((view, at) => view.setUint32(at + 8, 1));
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
    await expect(qemuBytes(path)).rejects.toThrow('Input/output error');
  });

  test('a cluster of zeroes at what is no start of a cluster, as by QEMU', async () => {
    await qemuIo(path, ['write -z 1M 64k']);
    patchEntry((view, at) => view.setBigUint64(at, 0x50201n | (1n << 63n)));
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
    await expect(
      run('qemu-img', ['convert', '-O', 'raw', path, join(folder, 'x.raw')]),
    ).rejects.toThrow();
    patchEntry((view, at) => view.setBigUint64(at, 0x50001n | (1n << 63n)));
    expect(await failure(path)).toBeUndefined();
  });

  test('a snapshot table behind the end of the file', async () => {
    patch(path, (view) => {
      view.setUint32(60, 3);
      view.setBigUint64(64, 2n ** 40n);
    });
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });

  test('a file that ends in the middle', async () => {
    truncateSync(path, 4 * CLUSTER);
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });

  test.each([
    ['the header', 0n],
    ['the L1 table', 0x30000n],
  ])('but a cluster that says it is %s is read, as by QEMU', async (_what, place) => {
    patchEntry((view, at) => view.setBigUint64(at, place | (1n << 63n)));
    expect(await failure(path)).toBeUndefined();
  });

  /** Changes the first entry of the first L2 table. */
  function patchEntry(change: (view: DataView, at: number) => void): void {
    patch(path, (view) => {
      const l1 = Number(view.getBigUint64(40));
      change(view, Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n));
    });
  }
});

describe('compressed clusters', () => {
  test('that make more than a cluster by zlib are read up to there, as by QEMU', async () => {
    const large = await makeLarge('zlib');
    await using device = await openDevice(large);
    await device.extents(0, device.size);
    await expectBytes(device, await qemuBytes(large));
  });

  test('that make more than a cluster by zstd are refused, as by QEMU', async () => {
    const large = await makeLarge('zstd');
    const error = await failure(large);
    expect(error).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
    expect(error?.message).toMatch(/compressed/);
    await expect(qemuBytes(large)).rejects.toThrow();
  });

  async function makeLarge(type: string): Promise<string> {
    // The clusters of the large image are given to a small one, which they are too much for.
    const large = join(folder, 'large.qcow2');
    await createImage(large, '2M', [`compression_type=${type}`, 'cluster_size=2M']);
    await qemuIo(large, ['write -c -P 5 0 2M']);
    patch(large, (view, bytes) => {
      const l1 = Number(view.getBigUint64(40));
      const l2 = Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n);
      const entry = view.getBigUint64(l2);
      const host = Number(entry & ((1n << 49n) - 1n));
      // Clusters of 1 MiB: the same tables, and one more bit of the offset.
      view.setUint32(20, 20);
      view.setUint32(36, 1);
      view.setBigUint64(l2, (1n << 62n) | (3n << 50n) | BigInt(host));
      expect(bytes.length).toBeGreaterThan(host);
    });
    return large;
  }

  test('that claim to be larger than all memory are refused', async () => {
    await createImage(path, '64k', ['compression_type=zstd']);
    await qemuIo(path, ['write -c -P 5 0 64k']);
    patch(path, (view, bytes) => {
      const at = Buffer.from(bytes).indexOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]));
      expect(at).toBeGreaterThan(0);
      // A single segment with 8 bytes of content size.
      view.setUint8(at + 4, 0xe0);
      view.setBigUint64(at + 5, 2n ** 31n, true);
    });
    expect(await failure(path)).toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
  });
});

describe('an image is opened', () => {
  test('marked as dirty or corrupt, to be read', async () => {
    await createImage(path, '1M');
    await qemuIo(path, ['write -P 7 0 1M']);
    patch(path, (view) => view.setUint32(76, 3));
    expect(await failure(path)).toBeUndefined();
    await expect(openDevice(path, { writable: true })).rejects.toMatchObject({
      code: 'ERR_QCOW2_CORRUPT',
    });
  });

  test('not when it is encrypted', async () => {
    await createImage(path, '1M');
    patch(path, (view) => view.setUint32(32, 2));
    const error = await failure(path);
    expect(error).toMatchObject({ code: 'ERR_QCOW2_UNSUPPORTED' });
    expect(error?.message).toMatch(/encrypted \(LUKS\)/);
  });

  test('raw, when its name says so, whatever its bytes', async () => {
    await createImage(path, '1M');
    const raw = join(folder, 'guest.raw');
    copyFileSync(path, raw);
    await using device = await openDevice(raw);
    expect((await readWhole(device)).equals(readFileSync(path))).toBe(true);
  });

  test('never in a snapshot that it does not have', async () => {
    await createImage(path, '1M');
    await run('qemu-img', ['snapshot', '-c', 'one', path]);
    const file = { driver: 'file', filename: path } as const;
    const error = await failure({ driver: 'qcow2', file, snapshot: 'two' });
    expect(error?.message).toMatch(/no snapshot "two"; it has: 1 \(one\)/);
  });
});

/** Where the metadata of an image with one L2 table lies. */
function placesOf(view: DataView): Record<string, number> {
  const l1 = Number(view.getBigUint64(40));
  const refcounts = Number(view.getBigUint64(48));
  return {
    'the L1 table': l1,
    'the refcount table': refcounts,
    'a refcount block': Number(view.getBigUint64(refcounts)),
    'an L2 table': Number(view.getBigUint64(l1) & 0xff_ffff_ffff_ffffn),
  };
}

const CHANGES: [string, (device: Device) => Promise<void>][] = [
  ['written', (device) => device.write(0, new Uint8Array(CLUSTER).fill(1))],
  ['written in part', (device) => device.write(5, new Uint8Array(10).fill(1))],
  ['zeroed', (device) => device.zero(0, CLUSTER)],
  ['discarded', (device) => device.discard(0, CLUSTER)],
];

describe('metadata is neither written over nor given up, though a table says it is a cluster of the disk', () => {
  const wheres = ['the L1 table', 'the refcount table', 'a refcount block', 'an L2 table'];
  const cases = wheres.flatMap((where) => CHANGES.map(([what]) => [where, what] as const));
  test.each(cases)('%s, when that is %s', async (where, what) => {
    await createImage(path, '8M');
    await qemuIo(path, ['write 0 1M']);
    let place = 0;
    patch(path, (view) => {
      const places = placesOf(view);
      place = places[where];
      view.setBigUint64(places['an L2 table'], BigInt(place) | (1n << 63n));
    });
    const before = readFileSync(path).subarray(place, place + CLUSTER);
    const change = CHANGES.find(([name]) => name === what)![1];
    const device = await openDevice(path, { writable: true });
    const refusal = await change(device)
      .then(() => device.flush())
      .then(
        () => undefined,
        (error: LacunaError) => error.code,
      );
    expect([undefined, 'ERR_QCOW2_CORRUPT']).toContain(refusal);
    if (what.startsWith('written')) expect(refusal).toBe('ERR_QCOW2_CORRUPT');
    await device.write(4 * MIB, new Uint8Array(MIB).fill(7));
    await device.close();
    const after = readFileSync(path).subarray(place, place + CLUSTER);
    // Some of its entries may have changed, as they must; it is none of what was written, and not gone.
    expect(after.subarray(-64)).toEqual(before.subarray(-64));
    expect(after.some((byte) => byte !== 0)).toBe(true);
    expect(after.includes(7, 256)).toBe(false);
  });

  test('the header, when a compressed cluster that lies there is written anew', async () => {
    await createImage(path, '8M');
    await qemuIo(path, ['write 0 1M']);
    patch(path, (view) => {
      view.setBigUint64(placesOf(view)['an L2 table'], 1n << 62n);
    });
    const device = await openDevice(path, { writable: true });
    await device.zero(0, CLUSTER);
    await device.flush();
    await device.write(4 * MIB, new Uint8Array(MIB).fill(7));
    await device.close();
    expect(readFileSync(path).subarray(0, 4).toString('latin1')).toBe('QFI\xfb');
  });
});
