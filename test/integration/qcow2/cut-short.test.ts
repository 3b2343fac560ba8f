/** Images whose files end too early: what a table names and the file does not have is never taken for zeroes. */
import {
  appendFileSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { openBitmaps } from 'lacuna';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Device, type DeviceDescription, openDevice } from '#dist/block/index.js';
import { Status } from '#dist/extent/index.js';
import { run } from '../../support/peers.js';
import {
  createImage,
  expectBytes,
  qemuBytes,
  qemuIo,
  readWhole,
} from '../../support/qemu-images.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const CLUSTER = 65_536;
const SIZE = 4 * MIB;
const folderOfAll = temporaryFolder();
let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(folderOfAll, 'test-'));
  path = join(folder, 'a.qcow2');
});

const described = (more: object = {}): DeviceDescription => ({
  driver: 'qcow2',
  file: { driver: 'file', filename: path },
  ...more,
});

/** How all of a device is read, and how its status is told. */
async function outcomes(description: DeviceDescription): Promise<(string | undefined)[]> {
  const attempt = (use: (device: Device) => Promise<unknown>) =>
    openDevice(description).then(async (device) => {
      await using opened = device;
      await use(opened);
    });
  const tries = [attempt(readWhole), attempt((device) => device.extents(0, device.size))];
  const settled = await Promise.allSettled(tries);
  return settled.map((result) =>
    result.status === 'fulfilled' ? undefined : `${result.reason.code} ${result.reason.message}`,
  );
}

const CUT = expect.stringMatching(/^ERR_QCOW2_CORRUPT .* is cut short: .*--rescue/);

/** Where an image with one L1 table keeps what. */
function placesOf(file = path) {
  const bytes = readFileSync(file);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const l1 = Number(view.getBigUint64(40));
  return {
    bytes,
    view,
    l1,
    refcounts: Number(view.getBigUint64(48)),
    snapshots: Number(view.getBigUint64(64)),
    l2: Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n),
  };
}

/** Moves a cluster of metadata behind all others, as an image gets it that grows, and has the header name it there. */
function moveToTheEnd(field: number): number {
  const { bytes, view } = placesOf();
  const old = Number(view.getBigUint64(field));
  const place = Math.ceil(bytes.length / CLUSTER) * CLUSTER;
  view.setBigUint64(field, BigInt(place));
  const moved = Buffer.alloc(CLUSTER);
  bytes.copy(moved, 0, old, old + CLUSTER);
  writeFileSync(path, bytes);
  truncateSync(path, place);
  appendFileSync(path, moved);
  return place;
}

describe('an image that is whole is read, wherever its file ends', () => {
  const kinds = ['off', 'metadata', 'falloc', 'full'].flatMap((how) =>
    ['off', 'on'].flatMap((extended) => [512, 1_000_448].map((size) => [how, extended, size])),
  );
  test.each(kinds)('preallocation=%s, extended_l2=%s, %i bytes', async (how, extended, size) => {
    const options = [`preallocation=${how}`, `extended_l2=${extended}`];
    await createImage(path, size, options);
    await qemuIo(path, [`write -P 5 ${Number(size) - 512} 512`]);
    await using device = await openDevice(path);
    await expectBytes(device, await qemuBytes(path));
    await device.close();
    await run('qemu-img', ['resize', '-q', path, `${Number(size) + 3 * MIB + 512}`]);
    await using larger = await openDevice(path);
    await expectBytes(larger, await qemuBytes(path));
    await larger.extents(0, larger.size);
    await larger.close();
    const writer = await openDevice(path, { writable: true });
    await writer.write(MIB, Buffer.alloc(MIB, 7));
    await writer.close();
    expect(await run('qemu-img', ['check', path])).toContain('No errors');
  });

  test('with a last cluster that is there as far as the disk goes', async () => {
    const size = 3 * CLUSTER + 1024;
    await createImage(path, size);
    await qemuIo(path, [`write -P 5 0 ${size}`]);
    const bytes = await qemuBytes(path);
    truncateSync(path, statSync(path).size - CLUSTER + 1024);
    expect(await run('qemu-img', ['check', path])).toContain('No errors');
    await using device = await openDevice(path);
    await expectBytes(device, bytes);
    await device.close();
    await using writer = await openDevice(path, { writable: true });
    await expectBytes(writer, bytes);
  });

  test('with a last cluster of zeroes that is not there at all', async () => {
    await createImage(path, SIZE);
    await qemuIo(path, [`write -P 5 0 ${4 * CLUSTER}`, `write -z ${3 * CLUSTER} ${CLUSTER}`]);
    const bytes = await qemuBytes(path);
    truncateSync(path, statSync(path).size - CLUSTER);
    await using device = await openDevice(path);
    await expectBytes(device, bytes);
  });

  test('with clusters in use behind its end that nothing names, as after a crash', async () => {
    await createImage(path, SIZE);
    await qemuIo(path, [`write -P 5 0 ${4 * CLUSTER}`]);
    const { view, bytes, l2 } = placesOf();
    view.setBigUint64(l2 + 24, 0n);
    writeFileSync(path, bytes);
    truncateSync(path, bytes.length - CLUSTER);
    await using device = await openDevice(path, { writable: true });
    await device.write(MIB, Buffer.alloc(CLUSTER, 7));
    await device.close();
    expect((await qemuBytes(path)).subarray(MIB, MIB + CLUSTER)).toEqual(Buffer.alloc(CLUSTER, 7));
  });
});

describe('what is missing is refused, by reads and by status', () => {
  test.each([
    ['one byte of a cluster', 1],
    ['a cluster', CLUSTER],
    ['half of the clusters', 2 * MIB],
    ['the L2 table too', SIZE + CLUSTER],
    ['a part of the L1 table too', SIZE + 2 * CLUSTER - 1],
  ])('%s', async (_what, bytes) => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 4M']);
    truncateSync(path, statSync(path).size - bytes);
    expect(await outcomes(described())).toEqual([CUT, CUT]);
    await expect(openDevice(path, { writable: true })).rejects.toThrow(/cut short/);
    await expect(openBitmaps(path, { writable: true })).rejects.toThrow(/cut short/);
  });

  test.each([
    ['the L1 table', 40],
    ['the refcount table', 48],
    ['the snapshot table', 64],
  ])('%s at the end of the file', async (_what, field) => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 1M']);
    await run('qemu-img', ['snapshot', '-c', 'one', path]);
    truncateSync(path, moveToTheEnd(field));
    expect(await outcomes(described())).toEqual([CUT, CUT]);
    await expect(openDevice(path, { writable: true })).rejects.toThrow(/cut short/);
  });

  test('the L1 table of a snapshot', async () => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 1M']);
    await run('qemu-img', ['snapshot', '-c', 'one', path]);
    const { view, bytes, snapshots } = placesOf();
    const place = Math.ceil(bytes.length / CLUSTER) * CLUSTER;
    view.setBigUint64(snapshots, BigInt(place));
    writeFileSync(path, bytes);
    truncateSync(path, place);
    expect(await outcomes(described())).toEqual([undefined, undefined]);
    expect(await outcomes(described({ snapshot: 'one' }))).toEqual([CUT, CUT]);
  });

  test('subclusters', async () => {
    await createImage(path, SIZE, ['extended_l2=on']);
    await qemuIo(path, ['write -P 5 0 4k']);
    truncateSync(path, statSync(path).size - 1);
    expect(await outcomes(described())).toEqual([CUT, CUT]);
  });

  test.each(['zlib', 'zstd'])('compressed clusters, by %s', async (type) => {
    await createImage(path, SIZE, [`compression_type=${type}`]);
    await qemuIo(
      path,
      [0, 1, 2].map((i) => `write -c -P ${i + 5} ${i * CLUSTER} ${CLUSTER}`),
    );
    const { l2, view } = placesOf();
    truncateSync(path, Number(view.getBigUint64(l2 + 16) & 0xff_ffffn));
    expect(await outcomes(described())).toEqual([CUT, CUT]);
  });

  test('a data file', async () => {
    const data = join(folder, 'data.raw');
    await createImage(path, SIZE, [`data_file=${data}`]);
    await qemuIo(path, ['write -P 5 0 4M']);
    truncateSync(data, 2 * MIB);
    expect(await outcomes(described())).toEqual([CUT, CUT]);
    await expect(openDevice(path, { writable: true })).rejects.toThrow(/cut short/);
  });

  test('a cluster that is overwritten in part, and that the refcounts do not know', async () => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 4M']);
    const { view, bytes, refcounts } = placesOf();
    const last = bytes.length / CLUSTER - 1;
    view.setUint16(Number(view.getBigUint64(refcounts)) + last * 2, 0);
    writeFileSync(path, bytes);
    truncateSync(path, bytes.length - CLUSTER);
    const device = await openDevice(path, { writable: true });
    await expect(device.write(SIZE - 512, new Uint8Array(512))).rejects.toThrow(/cut short/);
    await device.close();
    expect(statSync(path).size).toBe(bytes.length - CLUSTER);
  });

  test('bits of a bitmap', async () => {
    await createImage(path, SIZE);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    await qemuIo(path, ['write -P 5 0 64k']);
    const { bytes } = placesOf();
    await using image = await openBitmaps(path);
    await image.load('b0');
    await image.close();
    truncateSync(path, bytes.length - CLUSTER);
    await expect(openBitmaps(path, { writable: true })).rejects.toThrow(/cut short/);
  });

  test('the bitmap directory, of which a device warns that can be read', async () => {
    await createImage(path, SIZE);
    await run('qemu-img', ['bitmap', '--add', path, 'b0']);
    const { bytes, view } = placesOf();
    const extension = Buffer.from(bytes).indexOf(Buffer.from([0x23, 0x85, 0x28, 0x75]));
    view.setBigUint64(extension + 24, BigInt(Math.ceil(bytes.length / CLUSTER) * CLUSTER));
    writeFileSync(path, bytes);
    await using device = await openDevice(path);
    expect(device.warnings).toEqual([
      expect.stringMatching(/bitmaps of .* cannot be read, only its disk: .*cut short/),
    ]);
    expect((await readWhole(device)).equals(Buffer.alloc(SIZE))).toBe(true);
    await device.close();
    await expect(openDevice(path, { writable: true })).rejects.toThrow(/cut short/);
  });
});

test('the message says where the first byte is that is missing', async () => {
  await createImage(path, SIZE);
  await qemuIo(path, ['write -P 5 0 4M']);
  const { size } = statSync(path);
  truncateSync(path, size - 2 * MIB - 5);
  const place = size - 2 * MIB - CLUSTER;
  await using device = await openDevice(path);
  await expect(readWhole(device)).rejects.toMatchObject({
    offset: place,
    message: expect.stringContaining(`a cluster of the disk at ${place} lies`),
  });
});

test('an image that somebody writes is not called cut short, but said to have grown', async () => {
  await createImage(path, SIZE);
  await qemuIo(path, ['write -P 5 0 1M']);
  const whole = join(folder, 'whole.qcow2');
  copyFileSync(path, whole);
  truncateSync(path, statSync(path).size - CLUSTER);
  await using device = await openDevice(path, { forceShare: true });
  copyFileSync(whole, path);
  await expect(readWhole(device)).rejects.toMatchObject({
    code: 'ERR_DEVICE_SHORT',
    retryable: true,
    message: expect.stringMatching(/has grown from .* open it again/),
  });
});

describe('rescue reads what is there', () => {
  /** What an image held before its file was cut, and what is left: zeroes from a byte of the disk on. */
  async function expectRescued(description: object, bytes: Buffer, lost: [number, number][]) {
    await using device = await openDevice(described({ rescue: true, ...description }));
    expect(device.missing).toEqual(lost.map(([offset, length]) => ({ offset, length })));
    const expected = Buffer.from(bytes);
    for (const [offset, length] of lost) expected.fill(0, offset, offset + length);
    expect((await readWhole(device)).equals(expected)).toBe(true);
    const [status] = await device.extents(0, device.size);
    for (const { offset, length, flags } of status) {
      if ((flags & Status.zero) === 0) continue;
      expect(expected.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
    }
    expect(device.warnings).toEqual([expect.stringMatching(/cut short.*lost and read as zeroes/)]);
  }

  test.each([
    ['a part of a cluster', 1000, [[SIZE - 1000, 1000]]],
    ['half of the clusters', 2 * MIB, [[2 * MIB, 2 * MIB]]],
    ['a part of the L2 table', SIZE + CLUSTER - 256, [[0, SIZE]]],
    ['all of the L2 table', SIZE + CLUSTER, [[0, SIZE]]],
    ['the L1 table too', SIZE + 2 * CLUSTER, [[0, SIZE]]],
  ] as [string, number, [number, number][]][])('where %s is missing', async (_what, cut, lost) => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 4M']);
    const bytes = await qemuBytes(path);
    truncateSync(path, statSync(path).size - cut);
    await expectRescued({}, bytes, lost);
  });

  test('where the end of the L2 table is missing, over a backing file', async () => {
    const base = join(folder, 'base.raw');
    writeFileSync(base, Buffer.alloc(SIZE, 9));
    await createImage(path, SIZE, ['cluster_size=512'], ['-b', base, '-F', 'raw']);
    await qemuIo(path, ['write -P 5 0 16k']);
    const bytes = await qemuBytes(path);
    // Half of the first table, of 64 entries, and nothing behind it: its clusters lie there.
    truncateSync(path, placesOf().l2 + 256);
    await expectRescued({}, bytes, [[0, 32 * 1024]]);
  });

  test('where a backing file is cut, as far as it can be seen', async () => {
    const base = join(folder, 'base.qcow2');
    await createImage(base, SIZE);
    await qemuIo(base, ['write -P 9 0 4M']);
    await createImage(path, SIZE, [], ['-b', base, '-F', 'qcow2']);
    await qemuIo(path, ['write -P 5 3M 512k']);
    const bytes = await qemuBytes(path);
    truncateSync(base, statSync(base).size - 2 * MIB);
    await using device = await openDevice(described({ rescue: true }));
    expect(device.missing).toEqual([
      { offset: 2 * MIB, length: MIB },
      { offset: 3.5 * MIB, length: 0.5 * MIB },
    ]);
    bytes.fill(0, 2 * MIB, 3 * MIB).fill(0, 3.5 * MIB);
    expect((await readWhole(device)).equals(bytes)).toBe(true);
  });

  test('where compressed clusters are cut', async () => {
    await createImage(path, SIZE);
    const commands = [0, 1, 2].map((i) => `write -c -P ${i + 5} ${i * CLUSTER} ${CLUSTER}`);
    await qemuIo(path, commands);
    const bytes = await qemuBytes(path);
    const { l2, view } = placesOf();
    truncateSync(path, Number(view.getBigUint64(l2 + 8) & 0xff_ffffn) + 10);
    await expectRescued({}, bytes, [[CLUSTER, 2 * CLUSTER]]);
  });

  test('and never lets the image be written', async () => {
    await createImage(path, SIZE);
    await expect(openDevice(described({ rescue: true }), { writable: true })).rejects.toThrow(
      /rescue is for reading only/,
    );
  });

  test('and makes the command say so, and exit with 3', async () => {
    await createImage(path, SIZE);
    await qemuIo(path, ['write -P 5 0 4M']);
    const bytes = await qemuBytes(path);
    truncateSync(path, statSync(path).size - MIB);
    bytes.fill(0, 3 * MIB);
    const target = join(folder, 'rescued.raw');
    expect(await runCli(['copy', path, target])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/cut short.*--rescue.*ERR_QCOW2_CORRUPT/),
    });
    const { code, stdout, stderr } = await runCli(['copy', '--json', '--rescue', path, target]);
    expect([code, stderr]).toEqual([3, expect.stringMatching(/1048576 bytes .* are lost/)]);
    const report = JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
    expect(report.missing).toEqual([{ offset: 3 * MIB, length: MIB }]);
    expect(readFileSync(target).equals(bytes)).toBe(true);
    for (const command of ['map', 'info', 'digest']) {
      expect(await runCli([command, '--rescue', path])).toMatchObject({ code: 3 });
      expect(await runCli([command, path]), command).toMatchObject({ code: 1 });
    }
    expect(await runCli(['map', '--rescue', target])).toMatchObject({ code: 2 });
    const stream = await runCli(['copy', '--rescue', path, '-']);
    expect([stream.code, stream.stdout.length]).toEqual([3, SIZE]);
  });
});
