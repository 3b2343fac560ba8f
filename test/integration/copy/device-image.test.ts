/** Images that are made on block devices and NBD exports, and images that are there and are written into. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { copy } from '#dist/index.js';
import { attachLoopDevice } from '../../support/loop-device.js';
import { noise } from '../../support/noise.js';
import { usePeers } from '../../support/peers.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
/** No multiple of a cluster. */
const SIZE = 6 * MIB + 3 * 512;

const peers = usePeers();
workInNewFolders();

beforeEach(() => {
  const disk = Buffer.alloc(SIZE);
  // In pieces that end in the middle of clusters, and one at the end of the disk.
  for (const [at, length] of [
    [0, 70 * KIB],
    [200 * KIB, 5000],
    [3 * MIB + 100, 300 * KIB],
    [SIZE - 1000, 1000],
  ]) {
    disk.set(noise(length), at);
  }
  writeFileSync('disk.raw', disk);
  // What is there before must not shine through.
  writeFileSync('device.img', noise(10 * MIB));
});

/** What QEMU says of an image, which is not what we say. */
function expectWhole(image: string): void {
  execFileSync('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
  execFileSync('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'disk.raw', image]);
}

/** Nothing begins there that anybody takes for an image. */
function expectNone(path: string): void {
  expect(readFileSync(path).subarray(0, 4)).not.toEqual(Buffer.from('QFI\xfb', 'latin1'));
}

function describeNbd(uri: string): object {
  const path = new URL(uri).searchParams.get('socket')!;
  return { driver: 'nbd', server: { type: 'unix', path } };
}

describe('a new qcow2 image', () => {
  test.each([
    ['64K', []],
    ['512', ['--threads', '2']],
    ['512K', ['--verify']],
  ])('lies on an NBD export with clusters of %s', async (cluster, flags) => {
    // Blocks of 4 KiB, and nothing is zeroed but by writing.
    const blocks = ['blocksize-minimum=4096', 'blocksize-error-policy=error'];
    const filters = ['--filter=nozero', '--filter=blocksize-policy'];
    const { uri } = await peers.nbdkit([...filters, 'file', 'device.img', ...blocks]);
    const made = ['-O', 'qcow2', '-o', `cluster_size=${cluster}`, ...flags];
    const { code, stderr } = await runHere(['copy', ...made, 'disk.raw', uri]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expectWhole('device.img');
  });

  test('lies on a block device, and grows there when QEMU writes into it', async () => {
    const device = attachLoopDevice(10 * MIB, 512);
    if (device === undefined) return;
    onTestFinished(() => device.detach());
    execFileSync('dd', ['if=device.img', `of=${device.path}`, 'status=none', 'conv=fsync']);
    const { code } = await runHere(['copy', '-O', 'qcow2', 'disk.raw', device.path]);
    expect(code).toBe(0);
    expectWhole(device.path);
    const write = ['-f', 'qcow2', '-c', 'write -P 7 4M 64k', device.path];
    execFileSync('qemu-io', write);
    execFileSync('qemu-io', ['-f', 'raw', '-c', 'write -P 7 4M 64k', 'disk.raw']);
    expectWhole(device.path);
  });

  test('holds the zeroes that are found in the data of a source, and not what the device held there', async () => {
    // It tells nothing of holes.
    const source = await peers.nbdkit(['--filter=noextents', 'file', 'disk.raw']);
    const { uri } = await peers.nbdkit(['file', 'device.img']);
    const { code, stderr } = await runHere(['copy', '-O', 'qcow2', source.uri, uri]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.anything() });
    expectWhole('device.img');
  });

  test('that does not fit is refused before anything is changed', async () => {
    truncateSync('device.img', 700 * KIB);
    const before = readFileSync('device.img');
    const { uri } = await peers.nbdkit(['file', 'device.img']);
    const { code, stderr } = await runHere(['copy', '-O', 'qcow2', 'disk.raw', uri]);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining('make it larger'),
    });
    const measured = execFileSync('qemu-img', ['measure', '-O', 'qcow2', '-f', 'raw', 'disk.raw']);
    const [, required] = /required size: (\d+)/.exec(`${measured}`)!;
    expect(stderr).toContain(`has ${700 * KIB} bytes, and the image takes ${required}:`);
    expect(readFileSync('device.img').equals(before)).toBe(true);
  });

  test('is refused on the disk that is copied, also by a name that does not tell', async () => {
    // There is room for an image of it.
    truncateSync('disk.raw', 0);
    writeFileSync('disk.raw', noise(MIB));
    truncateSync('disk.raw', 10 * MIB);
    const before = readFileSync('disk.raw');
    const one = await peers.nbdkit(['file', 'disk.raw']);
    const other = await peers.nbdkit(['file', 'disk.raw']);
    for (const source of [one.uri, 'disk.raw', other.uri]) {
      const { code, stderr } = await runHere(['copy', '-O', 'qcow2', source, one.uri]);
      const why = source === one.uri ? 'is the source itself' : 'holds the same bytes as';
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(why) });
      expect(readFileSync('disk.raw').equals(before)).toBe(true);
    }
  });

  test('is refused where the device holds an image that the source is made of', async () => {
    const convert = ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'base.qcow2'];
    execFileSync('qemu-img', convert);
    truncateSync('base.qcow2', 12 * MIB);
    const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, 'top.qcow2']);
    const before = readFileSync('base.qcow2');
    const { uri } = await peers.nbdkit(['file', 'base.qcow2']);
    const over = { driver: 'qcow2', file: describeNbd(uri) };
    const file = { driver: 'file', filename: 'top.qcow2' };
    const overExport = JSON.stringify({ driver: 'qcow2', file, backing: over });
    for (const source of ['base.qcow2', 'top.qcow2', overExport]) {
      const { code, stderr } = await runHere(['copy', '-O', 'qcow2', source, uri]);
      const why = source === overExport ? 'where an image below' : 'holds the same bytes as';
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(why) });
      expect(readFileSync('base.qcow2').equals(before)).toBe(true);
    }
  });

  test('of a copy that fails is no image afterwards', async () => {
    // Tables are written, and of the data only a part.
    const fails = ['--filter=error', 'file', 'device.img', 'error-pwrite=EIO'];
    const trigger = `error-file=${process.cwd()}/fail`;
    const { uri } = await peers.nbdkit([...fails, 'error-pwrite-rate=100%', trigger]);
    const { code, stderr } = await runHere(
      ['copy', '-O', 'qcow2', '--rate', '200K', 'disk.raw', uri],
      {
        onProgressSet: () => writeFileSync('fail', ''),
      },
    );
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('EIO') });
    expect(stderr).toContain('holds a part of the new image, which nothing opens');
    expect(stderr).not.toContain('--resume');
    expectNone('device.img');
  });

  test.each([3 as const, 2 as const])(
    'is none to anybody until all of it is there: version %s',
    async (version) => {
      // As it was before, and as a kill at any moment of the copy leaves it.
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', 'old.qcow2', '1M']);
      execFileSync('dd', ['if=old.qcow2', 'of=device.img', 'conv=notrunc', 'status=none']);
      const { uri } = await peers.nbdkit(['file', 'device.img']);
      let looks = 0;
      await copy({
        source: 'disk.raw',
        target: uri,
        targetFormat: 'qcow2',
        image: { version },
        verify: true,
        onBlock: () => {
          if (looks++ > 0) return expectNone('device.img');
          const info = ['info', '-U', '-f', 'qcow2', 'device.img'];
          expect(() => execFileSync('qemu-img', info, { stdio: 'ignore' })).toThrow();
        },
      });
      expect(looks).toBeGreaterThan(1);
      expectWhole('device.img');
    },
  );

  test.each([
    ['-c', 'cannot be compressed'],
    ['--bitmaps', 'cannot get the bitmaps'],
    ['--preallocation=metadata', 'cannot be preallocated'],
    ['--resume=notes', 'cannot be resumed'],
    ['-odata_file=data.raw', 'cannot have a data file'],
  ])('that is to have what only a file can have is refused: %s', async (flag, why) => {
    const before = readFileSync('device.img');
    const { uri } = await peers.nbdkit(['file', 'device.img']);
    const { code, stderr } = await runHere(['copy', '-O', 'qcow2', flag, 'disk.raw', uri]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(why) });
    expect(readFileSync('device.img').equals(before)).toBe(true);
    expect(existsSync('data.raw')).toBe(false);
  });
});

describe('with -n an image that is there', () => {
  test('is written into, and keeps how it was made', async () => {
    const create = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'old.qcow2', `${SIZE}`];
    execFileSync('qemu-img', create);
    execFileSync('qemu-io', ['-c', 'write -P 9 2M 512k', 'old.qcow2']);
    const { code, stderr } = await runHere(['copy', '-n', 'disk.raw', 'old.qcow2']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expectWhole('old.qcow2');
    const info = execFileSync('qemu-img', ['info', '--output=json', 'old.qcow2']);
    expect(JSON.parse(`${info}`)['cluster-size']).toBe(4 * KIB);
  });

  test('on an NBD export is written into as well', async () => {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', 'old.qcow2', `${SIZE}`]);
    truncateSync('old.qcow2', 10 * MIB);
    const before = readFileSync('old.qcow2').subarray(0, 512);
    const { uri } = await peers.nbdkit(['file', 'old.qcow2']);
    const { code } = await runHere(['copy', '-n', '-O', 'qcow2', 'disk.raw', uri]);
    expect(code).toBe(0);
    expectWhole('old.qcow2');
    expect(readFileSync('old.qcow2').subarray(0, 32)).toEqual(before.subarray(0, 32));
  });

  test('must be there', async () => {
    const { code, stderr } = await runHere(['copy', '-n', 'disk.raw', 'none.qcow2']);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('-n makes none') });
    expect(existsSync('none.qcow2')).toBe(false);
  });
});
