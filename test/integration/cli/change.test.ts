/** Images that `resize`, `snapshot` and `amend` change, as QEMU sees them then. */
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createQcow2, openBitmaps, openDevice, resizeImage } from 'lacuna';
import { expect, test } from 'vitest';
import { run } from '../../support/peers.js';
import { qemuBytes, qemuMap } from '../../support/qemu-images.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const IMAGE = 'disk.qcow2';

workInNewFolders();

async function lacuna(...args: string[]) {
  const result = await runHere(args);
  expect([result.code, result.stderr], args.join(' ')).toEqual([0, '']);
  return result.stdout;
}

async function refusal(...args: string[]) {
  const { code, stdout, stderr } = await runHere(args);
  expect(stdout, args.join(' ')).toBe('');
  return { code, stderr };
}

async function write(path: string, ...commands: string[]): Promise<void> {
  await run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), path]);
}

async function infoOf(path: string) {
  return JSON.parse(await run('qemu-img', ['info', '--output=json', path]));
}

test('resize takes sizes and changes of them as qemu-img does, and says what it has done', async () => {
  await createQcow2(IMAGE, { size: 4 * MIB });
  expect(await lacuna('resize', IMAGE, '6M')).toBe(
    `Resized ${IMAGE} from 4 MiB to 6 MiB (6291456 bytes).\n`,
  );
  await lacuna('resize', IMAGE, '+1M');
  expect(await lacuna('resize', '--shrink', '-q', IMAGE, '-2M')).toBe('');
  expect((await infoOf(IMAGE))['virtual-size']).toBe(5 * MIB);
  expect(JSON.parse(await lacuna('resize', '--json', IMAGE, '5M'))).toEqual({
    filename: IMAGE,
    before: 5 * MIB,
    size: 5 * MIB,
    lostData: 0,
  });
  for (const [size, told] of [
    ['1000', /a multiple of 512; the next one is 1024/],
    ['-9M', /nothing of it would be left/],
    ['+0', /Say by how much/],
    ['many', /is not a size/],
    ['--shrnk', /unknown option/],
  ] as const) {
    const { code, stderr } = await refusal('resize', '--shrink', IMAGE, size);
    expect(code).toBe(2);
    expect(stderr).toMatch(told);
  }
  await run('qemu-img', ['check', IMAGE]);
});

test('resize says what a smaller disk would lose, and loses it only where that is allowed', async () => {
  await createQcow2(IMAGE, { size: 4 * MIB });
  await write(IMAGE, 'write -P 1 0 4M', 'write -z 2M 1M');
  const before = readFileSync(IMAGE);
  const { code, stderr } = await refusal('resize', IMAGE, '2M');
  expect(code).toBe(2);
  expect(stderr).toContain('would lose the last 2097152 bytes of its disk, 1048576 of them data');
  expect(readFileSync(IMAGE).equals(before)).toBe(true);
  expect(await lacuna('resize', '--shrink', IMAGE, '2M')).toContain('and lost 1 MiB of data');
  await run('qemu-img', ['check', IMAGE]);
  expect(await qemuMap(IMAGE)).toEqual([{ start: 0, length: 2 * MIB, depth: 0, zero: false }]);
});

test('what was cut off does not come back when the disk grows again', async () => {
  await createQcow2(IMAGE, { size: 4 * MIB });
  await write(IMAGE, 'write -P 1 0 4M');
  await lacuna('resize', '--shrink', IMAGE, '-1536');
  await lacuna('resize', IMAGE, '4M');
  const bytes = await qemuBytes(IMAGE);
  expect(bytes.subarray(-1536).every((byte) => byte === 0)).toBe(true);
  expect(bytes.subarray(0, -1536).every((byte) => byte === 1)).toBe(true);
});

test('bitmaps get the size of the disk, and what is added is clean in them', async () => {
  await createQcow2(IMAGE, { size: 4 * MIB });
  await run('qemu-img', ['bitmap', '--add', '-g', '64k', IMAGE, 'b']);
  await write(IMAGE, 'write -P 1 1M 2M');
  await lacuna('resize', '--shrink', IMAGE, '2M');
  await lacuna('resize', IMAGE, '8M');
  {
    await using image = await openBitmaps(IMAGE);
    using bits = await image.load('b');
    expect([...bits.ranges()]).toEqual([{ offset: MIB, length: MIB }]);
  }
  await write(IMAGE, 'write -P 1 7M 64k');
  await using image = await openBitmaps(IMAGE);
  expect(image.bitmaps.list()).toMatchObject([{ name: 'b', inconsistent: false }]);
  using bits = await image.load('b');
  expect(bits.dirtyBytes).toBe(MIB + 65_536);
});

test('a raw file gets another size, and its space at once where that is asked for', async () => {
  writeFileSync('disk.raw', Buffer.alloc(MIB, 7));
  await lacuna('resize', 'disk.raw', '+1M', '--preallocation', 'full');
  expect(statSync('disk.raw').size).toBe(2 * MIB);
  expect(statSync('disk.raw').blocks * 512).toBeGreaterThanOrEqual(2 * MIB);
  expect((await refusal('resize', 'disk.raw', '1M')).stderr).toContain('1048576 of them data');
  await lacuna('resize', '--shrink', 'disk.raw', '1M');
  expect(readFileSync('disk.raw').equals(Buffer.alloc(MIB, 7))).toBe(true);
  const metadata = await refusal('resize', 'disk.raw', '+1M', '--preallocation', 'metadata');
  expect(metadata.stderr).toContain('has no metadata: use falloc or full');
  expect(statSync('disk.raw').size).toBe(MIB);
});

test('an image that is taken for raw by its name alone is not cut', async () => {
  await createQcow2('disk.img', { size: MIB });
  const before = readFileSync('disk.img');
  for (const size of ['-64K', '+1M']) {
    const { code, stderr } = await refusal('resize', '--shrink', 'disk.img', size);
    expect([code, stderr]).toEqual([1, expect.stringContaining('say -f qcow2')]);
  }
  expect(readFileSync('disk.img').equals(before)).toBe(true);
  await lacuna('resize', '-f', 'qcow2', 'disk.img', '+1M');
  expect((await infoOf('disk.img'))['virtual-size']).toBe(2 * MIB);
});

test('an image lays out at once what is added, and a raw data file ends where the disk does', async () => {
  for (const preallocation of ['metadata', 'falloc', 'full'] as const) {
    await createQcow2(IMAGE, { size: MIB });
    await lacuna('resize', IMAGE, '2M', '--preallocation', preallocation);
    await run('qemu-img', ['check', IMAGE]);
    const [, added] = await qemuMap(IMAGE);
    expect(added).toMatchObject({ start: MIB, length: MIB, depth: 0 });
    expect((await qemuBytes(IMAGE)).every((byte) => byte === 0)).toBe(true);
  }
  await createQcow2(IMAGE, { size: 4 * MIB, dataFile: 'data.raw', dataFileRaw: true });
  await write(IMAGE, 'write -P 1 0 4M');
  await resizeImage(IMAGE, 3 * MIB, { shrink: true });
  expect(statSync('data.raw').size).toBe(3 * MIB);
  await run('qemu-img', ['check', IMAGE]);
});

test('what cannot be resized is left as it is', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', IMAGE, '1M']);
  await run('qemu-img', ['snapshot', '-c', 's', IMAGE]);
  expect(await refusal('resize', IMAGE, '2M')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('is of version 2 and has snapshots'),
  });
  const server = 'nbd+unix:///?socket=/nowhere/nbd.sock';
  expect((await refusal('resize', server, '2M')).code).toBe(2);
});

test('what is described as read-only is not resized, image or file, also below a filter', async () => {
  await createQcow2(IMAGE, { size: MIB });
  writeFileSync('disk.raw', Buffer.alloc(4096));
  const image = (key: string) => `${key}.driver=file,${key}.filename=${IMAGE}`;
  for (const given of [
    `driver=qcow2,read-only=on,${image('file')}`,
    `driver=delay,milliseconds=0,file.driver=qcow2,file.read-only=on,${image('file.file')}`,
    'driver=file,read-only=on,filename=disk.raw',
    'driver=delay,milliseconds=0,file.driver=file,file.read-only=on,file.filename=disk.raw',
  ]) {
    const { code, stderr } = await refusal('resize', given, '2M');
    expect([code, stderr]).toEqual([2, expect.stringContaining('is described as read-only')]);
  }
  expect(statSync('disk.raw').size).toBe(4096);
  expect((await infoOf(IMAGE))['virtual-size']).toBe(MIB);
});

test('snapshots are taken, listed, applied and deleted, by id or by name', async () => {
  await createQcow2(IMAGE, { size: 2 * MIB });
  await write(IMAGE, 'write -P 1 0 1M');
  expect(await lacuna('snapshot', '-c', 'first', IMAGE)).toBe(
    `Took snapshot 1 (first) of ${IMAGE}.\n`,
  );
  await write(IMAGE, 'write -P 2 0 2M');
  const taken = JSON.parse(await lacuna('snapshot', '-c', 'second', '--json', IMAGE));
  expect(taken).toMatchObject({ id: '2', name: 'second', size: 2 * MIB, stateSize: 0 });
  const listed = JSON.parse(await lacuna('snapshot', '--json', IMAGE));
  expect(listed.map(({ name }: { name: string }) => name)).toEqual(['first', 'second']);
  expect(listed[1]).toEqual(taken);
  await lacuna('snapshot', '-a', '1', IMAGE);
  await run('qemu-img', ['check', IMAGE]);
  expect((await qemuBytes(IMAGE)).subarray(0, MIB).every((byte) => byte === 1)).toBe(true);
  expect(await lacuna('snapshot', '-q', '-d', 'first', IMAGE)).toBe('');
  await run('qemu-img', ['check', IMAGE]);
  expect((await infoOf(IMAGE)).snapshots).toMatchObject([{ id: '2', name: 'second' }]);
});

test('a snapshot that is not there, or would be there twice, changes nothing', async () => {
  await createQcow2(IMAGE, { size: MIB });
  await lacuna('snapshot', '-c', 'one', IMAGE);
  const before = readFileSync(IMAGE);
  for (const [args, told] of [
    [['-c', 'one'], /has a snapshot "one" already: choose another name/],
    [['-c', '1'], /has a snapshot "1" already/],
    [['-a', 'two'], /has no snapshot "two"; it has: 1 \(one\)/],
    [['-d', 'two'], /has no snapshot "two"/],
    [['-c', ''], /has 1 to 255 bytes, not 0/],
    [['-c', 'x', '-d', 'y'], /are different things to do/],
  ] as const) {
    const { code, stderr } = await refusal('snapshot', ...args, IMAGE);
    expect(stderr).toMatch(told);
    expect(code).toBe(/has no|already/.test(stderr) ? 1 : 2);
  }
  expect(readFileSync(IMAGE).equals(before)).toBe(true);
});

test('a word that is the id of one snapshot and the name of another deletes and applies neither', async () => {
  await createQcow2(IMAGE, { size: MIB });
  await run('qemu-img', ['snapshot', '-c', '2', IMAGE]);
  await run('qemu-img', ['snapshot', '-c', 'other', IMAGE]);
  const before = readFileSync(IMAGE);
  for (const verb of ['-d', '-a']) {
    const { code, stderr } = await refusal('snapshot', verb, '2', IMAGE);
    expect([code, stderr]).toEqual([1, expect.stringContaining('"2" may mean')]);
    expect(stderr).toContain('1 (2), 2 (other)');
  }
  expect(readFileSync(IMAGE).equals(before)).toBe(true);
  expect(await lacuna('snapshot', '-d', '1', IMAGE)).toContain('1 (2)');
  // A new one gets no id that would make it so.
  for (const name of ['3', '5', 'last']) await lacuna('snapshot', '-c', name, IMAGE);
  const { snapshots } = await infoOf(IMAGE);
  expect(snapshots.map(({ id, name }: { id: string; name: string }) => [id, name])).toEqual([
    ['2', 'other'],
    ['4', '3'],
    ['6', '5'],
    ['7', 'last'],
  ]);
});

test('a snapshot of a size that no image can have is not applied, and the image stays as it is', async () => {
  await createQcow2(IMAGE, { size: MIB, clusterSize: 512 });
  await lacuna('snapshot', '-c', 'huge', IMAGE);
  const bytes = readFileSync(IMAGE);
  // The size of its disk is the second of the known fields of extra data.
  bytes.writeBigUInt64BE(2n ** 52n, Number(bytes.readBigUInt64BE(64)) + 48);
  writeFileSync(IMAGE, bytes);
  const { code, stderr } = await refusal('snapshot', '-a', 'huge', IMAGE);
  expect([code, stderr]).toEqual([1, expect.stringContaining('too large for its clusters')]);
  expect(readFileSync(IMAGE).equals(bytes)).toBe(true);
});

test('a snapshot that a narrow refcount has no room for is refused, and the image stays sound', async () => {
  await createQcow2(IMAGE, { size: MIB, refcountBits: 2 });
  await write(IMAGE, 'write -P 1 0 1M');
  await lacuna('snapshot', '-c', 'one', IMAGE);
  await lacuna('snapshot', '-c', 'two', IMAGE);
  const { code, stderr } = await refusal('snapshot', '-c', 'three', IMAGE);
  expect([code, stderr]).toEqual([1, expect.stringContaining('has refcounts of 2 bits')]);
  await run('qemu-img', ['check', IMAGE]);
});

test('a refcount that ends too soon amid compressed clusters leaves an image that is sound', async () => {
  // All 64 clusters lie in one of the file, which is counted as often.
  writeFileSync('one.raw', Buffer.alloc(4 * MIB, 1));
  await run('qemu-img', [
    ...['convert', '-c', '-O', 'qcow2', '-o', 'refcount_bits=8', 'one.raw', IMAGE],
  ]);
  let code: number | null = 0;
  for (let i = 0; code === 0 && i < 20; i++) {
    ({ code } = await runHere(['snapshot', '-c', `s${i}`, IMAGE]));
    await run('qemu-img', ['check', IMAGE]);
  }
  expect(code).toBe(1);
  await using device = await openDevice(IMAGE);
  expect(device.details!.snapshots.length).toBeGreaterThan(1);
});

test('applying a snapshot makes all dirty in bitmaps that record, and gives them its size', async () => {
  await createQcow2(IMAGE, { size: 2 * MIB });
  await lacuna('snapshot', '-c', 'small', IMAGE);
  await lacuna('resize', IMAGE, '4M');
  await run('qemu-img', ['bitmap', '--add', IMAGE, 'records']);
  await run('qemu-img', ['bitmap', '--add', '--disable', IMAGE, 'rests']);
  await lacuna('snapshot', '-a', 'small', IMAGE);
  await run('qemu-img', ['check', IMAGE]);
  const info = await infoOf(IMAGE);
  expect(info['virtual-size']).toBe(2 * MIB);
  expect(info['format-specific'].data.bitmaps).toMatchObject([
    { name: 'records', flags: ['auto'] },
    { name: 'rests', flags: [] },
  ]);
  await using image = await openBitmaps(IMAGE);
  using records = await image.load('records');
  using rests = await image.load('rests');
  expect([records.dirtyBytes, rests.dirtyBytes]).toEqual([2 * MIB, 0]);
});

test('an image with a data file has no snapshots, and nothing but an image has', async () => {
  await createQcow2(IMAGE, { size: MIB, dataFile: 'data.raw' });
  expect((await refusal('snapshot', '-c', 'one', IMAGE)).stderr).toContain('in a data file');
  writeFileSync('disk.raw', 'raw');
  expect((await refusal('snapshot', '-c', 'one', 'disk.raw')).stderr).toContain(
    'nothing else has snapshots',
  );
});

test('amend changes the version both ways, and keeps disk, snapshots and bitmaps', async () => {
  writeFileSync('base.raw', Buffer.alloc(MIB, 9));
  await run('qemu-img', [
    ...['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', '-b', 'base.raw', '-F', 'raw'],
    ...[IMAGE, '2M'],
  ]);
  await write(IMAGE, 'write -P 1 512k 1M');
  await run('qemu-img', ['snapshot', '-c', 's', IMAGE]);
  expect(await lacuna('amend', '-o', 'compat=1.1,lazy_refcounts=on', IMAGE)).toBe(
    `Amended ${IMAGE}: qcow2 version 3, lazy refcounts, over a raw file.\n`,
  );
  await run('qemu-img', ['check', IMAGE]);
  await write(IMAGE, 'write -z 0 200k', 'write -z 1M 100k', 'write -z 1900k 64k');
  const shown = await qemuBytes(IMAGE);
  const { code, stderr } = await refusal('amend', '-o', 'compat=0.10', IMAGE);
  expect([code, stderr]).toEqual([1, expect.stringContaining('lazy_refcounts=off')]);
  await lacuna('amend', '-o', 'compat=0.10,lazy_refcounts=off', IMAGE);
  await run('qemu-img', ['check', IMAGE]);
  const info = await infoOf(IMAGE);
  expect(info['format-specific'].data.compat).toBe('0.10');
  expect(info.snapshots).toMatchObject([{ name: 's' }]);
  expect((await qemuBytes(IMAGE)).equals(shown)).toBe(true);
  await lacuna('amend', '-o', 'compat=v3', IMAGE);
  await run('qemu-img', ['bitmap', '--add', IMAGE, 'b']);
  await lacuna('amend', '-o', 'lazy_refcounts=on', IMAGE);
  expect((await infoOf(IMAGE))['format-specific'].data.bitmaps).toHaveLength(1);
});

test('amend refuses what cannot be changed in place, and says what to do', async () => {
  await createQcow2(IMAGE, { size: MIB, refcountBits: 8 });
  for (const [list, exit, told] of [
    ['cluster_size=4k', 2, /takes a copy/],
    ['size=2M', 2, /lacuna resize/],
    ['backing_file=x', 2, /lacuna rebase/],
    ['encrypt.format=luks', 2, /not known here/],
    ['compat=4', 2, /one of 0\.10, v2, 1\.1, v3/],
    ['lazy_refcounts', 2, /say its value/],
    ['nonsense=1', 2, /no such option/],
    ['compat=0.10', 1, /has refcounts of 8 bits, and version 2 has no such thing/],
    ['backing_fmt=raw', 1, /has no backing file/],
  ] as const) {
    const { code, stderr } = await refusal('amend', '-o', list, IMAGE);
    expect([code, stderr]).toEqual([exit, expect.stringMatching(told)]);
  }
  expect((await refusal('amend', IMAGE)).stderr).toContain('say with -o what is changed');
});

test('amend says how a backing file is read, unless that cannot be', async () => {
  await createQcow2('base.qcow2', { size: MIB });
  writeFileSync('base.raw', Buffer.alloc(MIB, 9));
  await createQcow2(IMAGE, { size: MIB, backing: { filename: 'base.qcow2', format: 'raw' } });
  await lacuna('amend', '-o', 'backing_fmt=qcow2', IMAGE);
  expect((await infoOf(IMAGE))['backing-filename-format']).toBe('qcow2');
  expect((await qemuBytes(IMAGE)).every((byte) => byte === 0)).toBe(true);
  await createQcow2(IMAGE, { size: MIB, backing: { filename: 'base.raw', format: 'raw' } });
  const { code, stderr } = await refusal('amend', '-o', 'backing_fmt=qcow2', IMAGE);
  expect([code, stderr]).toEqual([1, expect.stringContaining('is not a qcow2 image')]);
  expect((await infoOf(IMAGE))['backing-filename-format']).toBe('raw');
});

test('the name of a backing file leads amend and create where it leads every program', async () => {
  // Through a link the folder above is another one than the name tells.
  mkdirSync('real/deep', { recursive: true });
  symlinkSync('real/deep', 'link');
  await createQcow2('base.img', { size: MIB });
  writeFileSync('real/base.img', Buffer.alloc(3 * MIB, 9));
  const image = 'link/top.qcow2';
  await lacuna('create', '-f', 'qcow2', '-b', '../base.img', '-F', 'raw', image);
  expect((await infoOf(image))['virtual-size']).toBe(3 * MIB);
  expect((await qemuBytes(image)).every((byte) => byte === 9)).toBe(true);
  for (const filename of ['../base.img', 'file:../base.img']) {
    const backing = { filename, format: 'raw' };
    await createQcow2(image, { size: MIB, backing });
    const { code, stderr } = await refusal('amend', '-o', 'backing_fmt=qcow2', image);
    expect([code, stderr]).toEqual([1, expect.stringContaining('is not a qcow2 image')]);
  }
});
