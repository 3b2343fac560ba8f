/** `--offset`, `--length` and `--target-offset`: commands that work on a part of a disk. */
import { readFileSync, writeFileSync } from 'node:fs';
import { copy, createQcow2, digest, openDevice } from 'lacuna';
import { expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { qemuBytes } from '../../support/qemu-images.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 1024 * 1024;

workInNewFolders();
const peers = usePeers();

async function lacuna(...args: string[]) {
  const result = await runHere(args);
  expect([result.code, result.stderr], args.join(' ')).toEqual([0, '']);
  return result.stdout;
}

/** A raw disk with data and zeroes, by its name. */
function newDisk(name: string, size: number, seed = 1): Buffer {
  const random = new Random(Random.seed() + seed);
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const end = Math.min(size, at + random.between(1, 300) * 1024);
    bytes.fill(random.pick([0, random.between(1, 255)]), at, end);
    at = end;
  }
  writeFileSync(name, bytes);
  return bytes;
}

test('a copy of a part has those bytes alone, from a file, an image and a server, at odd places', async () => {
  const bytes = newDisk('disk.raw', 8 * MIB);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2']);
  const server = await peers.qemuNbd(['-f', 'raw', '-r', 'disk.raw']);
  for (const source of ['disk.raw', 'disk.qcow2', server.uri]) {
    for (const [offset, length] of [
      [1_234_567, 2_345_678],
      [MIB, MIB],
    ]) {
      const range = ['--offset', `${offset}`, '--length', `${length}`];
      await lacuna('copy', ...range, source, 'part.raw');
      const part = bytes.subarray(offset, offset + length);
      expect(readFileSync('part.raw').equals(part), `${source} ${range}`).toBe(true);
    }
  }
  await lacuna('copy', '--offset', '7M', 'disk.raw', 'part.raw');
  expect(readFileSync('part.raw').equals(bytes.subarray(7 * MIB))).toBe(true);
});

test('a copy to an offset writes there, and leaves what lies around that', async () => {
  const part = newDisk('part.raw', 1_500_000, 2);
  for (const target of ['disk.raw', 'disk.qcow2']) {
    const bytes = newDisk('disk.raw', 4 * MIB, 3);
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2']);
    await lacuna('copy', '--target-offset', '1001472', 'part.raw', target);
    part.copy(bytes, 1_001_472);
    const found = target === 'disk.raw' ? readFileSync(target) : await qemuBytes(target);
    expect(found.equals(bytes), target).toBe(true);
  }
  await run('qemu-img', ['check', '-q', 'disk.qcow2']);
});

test('many threads that copy a part to an offset of a server write all of it, and nothing else', async () => {
  const part = newDisk('part.raw', 3 * MIB + 777, 4);
  const bytes = newDisk('disk.raw', 8 * MIB, 5);
  const server = await peers.qemuNbd(['-f', 'raw', '--shared=8', 'disk.raw']);
  const target = { driver: 'raw', offset: 2 * MIB + 333, file: describe(server.server.path) };
  await copy({ source: 'part.raw', target: target as never, threads: 3, requestSize: 65_536 });
  await server.stop();
  part.copy(bytes, 2 * MIB + 333);
  expect(readFileSync('disk.raw').equals(bytes)).toBe(true);
});

function describe(path: string) {
  return { driver: 'nbd', server: { type: 'unix', path } } as const;
}

test('a range that the disk ends before is refused, and nothing is written', async () => {
  newDisk('disk.raw', MIB);
  newDisk('part.raw', MIB, 6);
  const before = readFileSync('disk.raw');
  for (const args of [
    ['copy', '--offset', '2M', 'disk.raw', 'new.raw'],
    ['copy', '--offset', '512K', '--length', '1M', 'disk.raw', 'new.raw'],
    ['copy', '--target-offset', '512K', 'part.raw', 'disk.raw'],
    ['copy', '--target-offset', '0', 'part.raw', 'new.raw'],
    ['digest', '--length', '2M', 'disk.raw'],
    ['map', '--offset', '2M', 'disk.raw'],
    ['map', '--length', '2M', 'disk.raw'],
  ]) {
    const { code, stderr } = await runHere(args);
    expect(code, args.join(' ')).toBe(1);
    expect(stderr, args.join(' ')).toMatch(/has 1048576 bytes, and|there is no such file/);
  }
  const compared = await runHere(['compare', '--offset', '2M', 'disk.raw', 'part.raw']);
  expect(compared.code).toBe(2);
  expect(readFileSync('disk.raw').equals(before)).toBe(true);
  expect(() => readFileSync('new.raw')).toThrow(/ENOENT/);
});

test('a part of a disk is not copied to another part of the same disk, which could be read after that', async () => {
  newDisk('disk.raw', 4 * MIB);
  const before = readFileSync('disk.raw');
  const args = ['copy', '--length', '2M', '--target-offset', '1M', 'disk.raw', 'disk.raw'];
  const { code, stderr } = await runHere(args);
  expect([code, stderr]).toEqual([1, expect.stringContaining('name another device')]);
  const server = await peers.qemuNbd(['-f', 'raw', '--shared=8', 'disk.raw']);
  const over = ['copy', '--length', '2M', '--target-offset', '1M', server.uri, server.uri];
  expect(await runHere(over)).toMatchObject({ code: 1 });
  await server.stop();
  expect(readFileSync('disk.raw').equals(before)).toBe(true);
});

test('bitmaps of a whole disk are not given to a part of it', async () => {
  await createQcow2('disk.qcow2', { size: 4 * MIB });
  const { code, stderr } = await runHere([
    ...['copy', '--bitmaps', '--offset', '1M', 'disk.qcow2', 'part.qcow2'],
  ]);
  expect([code, stderr]).toEqual([2, expect.stringContaining('those of its whole disk')]);
});

test('a compressed image is written from the start of a cluster on, and says so', async () => {
  await createQcow2('disk.qcow2', { size: 4 * MIB });
  newDisk('part.raw', MIB, 7);
  const file = { driver: 'file', filename: 'disk.qcow2' } as const;
  const target = { driver: 'raw', offset: 1000, file: { driver: 'qcow2', file, compress: true } };
  await expect(copy({ source: 'part.raw', target: target as never })).rejects.toThrow(
    /writes 65536 bytes at least.* not at 1000/,
  );
});

test('the map of a part tells places of the whole disk, as qemu-img does', async () => {
  newDisk('disk.raw', 8 * MIB);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2']);
  const range = ['--start-offset', '1000448', '--max-length', '3000320'];
  const theirs = JSON.parse(
    await run('qemu-img', ['map', '--output=json', ...range, 'disk.qcow2']),
  );
  const args = ['map', '--json', '--offset', '1000448', '--length', '3000320', 'disk.qcow2'];
  const ours: { start: number; length: number; zero: boolean }[] = JSON.parse(
    await lacuna(...args),
  );
  const spans = (list: { start: number; length: number; zero: boolean }[]) =>
    list.map(({ start, length, zero }) => [start, length, zero]);
  expect(spans(ours)).toEqual(spans(theirs));
  expect(JSON.parse(await lacuna('map', '--json', '--length', '0', 'disk.raw'))).toEqual([]);
  const picture = await lacuna('map', '--picture', '--offset', '4M', '--length', '1M', 'disk.raw');
  expect(picture.length).toBeGreaterThan(0);
});

test('compare and digest read a part alone, and tell places of the whole disk', async () => {
  const bytes = newDisk('a.raw', 4 * MIB);
  const other = Buffer.from(bytes);
  other[3 * MIB + 5] ^= 1;
  writeFileSync('b.raw', other);
  await lacuna('compare', '--length', '3M', 'a.raw', 'b.raw');
  const { code, stdout } = await runHere(['compare', '--json', '--offset', '2M', 'a.raw', 'b.raw']);
  expect([code, JSON.parse(stdout).offset]).toEqual([1, 3 * MIB + 5]);
  writeFileSync('part.raw', bytes.subarray(MIB + 1, 2 * MIB));
  const { digest: wanted } = await digest('part.raw');
  const range = ['--offset', `${MIB + 1}`, '--length', `${MIB - 1}`];
  expect(await lacuna('digest', ...range, 'a.raw')).toBe(`${wanted}  a.raw\n`);
});

test('what a bitmap marks in a part is copied, and no more, from a server', async () => {
  await createQcow2('disk.qcow2', { size: 8 * MIB });
  const write = (bytes: string) => run('qemu-io', ['-f', 'qcow2', '-c', bytes, 'disk.qcow2']);
  await write('write -P 1 0 8M');
  await run('qemu-img', ['bitmap', '--add', 'disk.qcow2', 'b0']);
  await write('write -P 2 1M 64k');
  await write('write -P 3 5M 64k');
  const server = await peers.qemuNbd(['-f', 'qcow2', '-r', '-B', 'b0', 'disk.qcow2']);
  writeFileSync('part.raw', Buffer.alloc(4 * MIB));
  const range = ['--offset', '4M', '--length', '4M'];
  await lacuna('copy', ...range, '--context', 'qemu:dirty-bitmap:b0', server.uri, 'part.raw');
  const wanted = Buffer.alloc(4 * MIB);
  wanted.fill(3, MIB, MIB + 65_536);
  expect(readFileSync('part.raw').equals(wanted)).toBe(true);
});

test('a part of a disk is a device of its own, also as the file of an image', async () => {
  newDisk('image.raw', MIB, 8);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'image.raw', 'image.qcow2']);
  const image = readFileSync('image.qcow2');
  writeFileSync('carrier', Buffer.concat([Buffer.alloc(5000, 1), image, Buffer.alloc(777, 2)]));
  const carrier = { driver: 'file', filename: 'carrier' } as const;
  const file = { driver: 'raw', offset: 5000, size: image.length, file: carrier } as const;
  await using device = await openDevice({ driver: 'qcow2', file, backing: null });
  const found = Buffer.alloc(MIB);
  await device.read(0, found);
  expect(found.equals(readFileSync('image.raw'))).toBe(true);
});
