/**
 * Increments over a target that held other data: what was zeroed or trimmed since the last copy reads as zero in
 * the copy afterwards, whatever the source is and however little it tells.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { openDevice } from '#dist/block/index.js';
import { type CopyOptions, copy, plan, readExtents } from '#dist/copy/index.js';
import { usePeers } from '../../support/peers.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 2 ** 20;
const SIZE = 32 * MIB;
const CONTEXT = 'qemu:dirty-bitmap:b0';
const top = temporaryFolder();
const peers = usePeers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

function qemu(program: string, ...args: string[]): string {
  return execFileSync(program, args, { cwd: folder, encoding: 'utf8' });
}

/** What has become of the disk since the last copy, by command of qemu-io, all of it in units of 64 KiB. */
const CHANGES: ReadonlyArray<[command: string, offset: number, length: number]> = [
  ['write -q -P 9', 1 * MIB, 64 * KIB],
  // Zeroes, written as bytes, as a command, and as a command that may trim.
  ['write -q -P 0', 3 * MIB, 128 * KIB],
  ['write -q -z', 5 * MIB, 512 * KIB],
  ['write -q -z -u', 8 * MIB, 256 * KIB],
  ['discard -q', 11 * MIB, 1 * MIB],
  // Data that came and went.
  ['write -q -P 7', 20 * MIB, 256 * KIB],
  ['discard -q', 20 * MIB, 128 * KIB],
  // The end of the disk.
  ['write -q -z -u', SIZE - 64 * KIB, 64 * KIB],
];

const changes = () =>
  CHANGES.flatMap(([command, offset, length]) => ['-c', `${command} ${offset} ${length}`]);

/** A disk in qcow2 with a full copy of it in `copy.raw`, then its changes, which QEMU notes in a bitmap. */
function makeDisk(options: { backing?: boolean } = {}): void {
  const fill = [
    '-c',
    `write -q -P 1 0 ${SIZE / 2}`,
    '-c',
    `write -q -P 2 ${18 * MIB} ${SIZE - 18 * MIB}`,
  ];
  if (options.backing) {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', `${SIZE}`);
    qemu('qemu-io', ...fill, 'base.qcow2');
    qemu(
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      'base.qcow2',
      '-F',
      'qcow2',
      'disk.qcow2',
    );
  } else {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'disk.qcow2', `${SIZE}`);
    qemu('qemu-io', ...fill, 'disk.qcow2');
  }
  qemu('qemu-img', 'convert', '-O', 'raw', 'disk.qcow2', 'copy.raw');
  qemu('qemu-img', 'bitmap', '--add', '-g', '64K', 'disk.qcow2', 'b0');
  qemu('qemu-io', '-d', 'unmap', ...changes(), 'disk.qcow2');
  qemu('qemu-img', 'convert', '-O', 'raw', 'disk.qcow2', 'disk.raw');
}

/** The same dirt as a bitmap of ours. */
function dirtyBitmap(granularity = 64 * KIB): Bitmap {
  const bitmap = new Bitmap({ size: SIZE, granularity });
  for (const [, offset, length] of CHANGES) bitmap.set(offset, length);
  return bitmap;
}

/** Copies the increment, and compares with QEMU's reading of the disk, byte for byte. */
async function expectEqualAfter(options: Omit<CopyOptions, 'target'>): Promise<void> {
  const target = join(folder, 'copy.raw');
  const report = await copy({ target, ...options });
  qemu('cmp', 'copy.raw', 'disk.raw');
  expect(report.movedBytes + report.zeroedBytes + report.skippedBytes).toBe(SIZE);
  expect(report.movedBytes + report.zeroedBytes).toBeGreaterThan(0);
}

const image = () => join(folder, 'disk.qcow2');

describe.each([{ backing: false }, { backing: true }])(
  'increments of a qcow2 disk (%o)',
  (chain) => {
    test('by the bitmap that qemu-nbd tells', async () => {
      makeDisk(chain);
      const { uri } = await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', image()]);
      await expectEqualAfter({ source: uri, context: CONTEXT });
    });

    test('by the bitmap that qemu-storage-daemon tells, with and without worker threads', async () => {
      makeDisk(chain);
      const node = `driver=qcow2,read-only=on,node-name=n,file.driver=file,file.filename=${image()}`;
      const nbd = 'type=nbd,id=e,node-name=n,name=disk,bitmaps.0=b0,allocation-depth=on';
      const { uri } = await peers.storageDaemon(['--blockdev', node, '--export', nbd]);
      const source = uri.replace('///', '///disk');
      qemu('cp', 'copy.raw', 'before.raw');
      const ways = [
        { threads: 0, detectZeroes: 'off' },
        { threads: 0, detectZeroes: 'unmap' },
        { threads: 2, detectZeroes: 'on' },
      ] as const;
      for (const way of ways) {
        qemu('cp', 'before.raw', 'copy.raw');
        await expectEqualAfter({ source, context: CONTEXT, ...way });
      }
    });

    test('by a bitmap of ours, from a server with and without status, and one that refuses it', async () => {
      makeDisk(chain);
      qemu('cp', 'copy.raw', 'before.raw');
      const inner = await peers.qemuNbd(['-r', '-f', 'qcow2', image()]);
      const proxied = ['nbd', `socket=${inner.server.path}`];
      const failing = ['error-extents=EIO', 'error-extents-rate=100%'];
      const sources = [
        inner.uri,
        (await peers.nbdkit(proxied)).uri,
        (await peers.nbdkit(['--filter=noextents', ...proxied])).uri,
        (await peers.nbdkit(['--filter=error', ...proxied, ...failing])).uri,
      ];
      for (const source of sources) {
        for (const granularity of [64 * KIB, 2 * MIB]) {
          qemu('cp', 'before.raw', 'copy.raw');
          await expectEqualAfter({ source, bitmap: dirtyBitmap(granularity) });
        }
      }
    });

    test('onto a target behind NBD that has no quick way to zero', async () => {
      makeDisk(chain);
      const source = (await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', image()])).uri;
      for (const filter of ['nozero', 'noextents']) {
        qemu('cp', 'copy.raw', 'target.raw');
        const raw = join(folder, 'target.raw');
        const served = await peers.nbdkit([`--filter=${filter}`, 'file', raw]);
        await copy({ source, target: served.uri, context: CONTEXT });
        await served.stop();
        qemu('cmp', 'target.raw', 'disk.raw');
      }
    });

    test('by extents that a product reads and writes by itself', async () => {
      makeDisk(chain);
      const { uri } = await peers.qemuNbd(['-r', '-f', 'qcow2', '-B', 'b0', image()]);
      const made = await plan({ source: uri, context: CONTEXT });
      await using target = await openDevice(join(folder, 'copy.raw'), { writable: true });
      for await (const { offset, length, data } of readExtents(uri, made)) {
        if (data === undefined) await target.zero(offset, length);
        else await target.write(offset, data);
      }
      await target.flush();
      qemu('cmp', 'copy.raw', 'disk.raw');
    });
  },
);

describe('increments of a raw disk', () => {
  test('that was zeroed and trimmed in place', async () => {
    qemu('truncate', '-s', `${SIZE}`, 'disk.raw');
    qemu('qemu-io', '-f', 'raw', '-c', `write -q -P 1 0 ${SIZE}`, 'disk.raw');
    qemu('cp', 'disk.raw', 'copy.raw');
    qemu('qemu-io', '-f', 'raw', '-d', 'unmap', ...changes(), 'disk.raw');
    await expectEqualAfter({ source: join(folder, 'disk.raw'), bitmap: dirtyBitmap() });
  });
});

test('a large disk is planned by its dirt, and by allocation only where it is dirty', async () => {
  const size = 2 ** 40;
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'large.qcow2', `${size}`);
  qemu('qemu-img', 'bitmap', '--add', 'large.qcow2', 'b0');
  const writes = Array.from({ length: 20 }, (_, i) => `write -q -P ${i + 1} ${i * 51}G 64k`);
  const zeroes = ['write -q -z 7G 1M', 'discard -q 51G 64k'];
  qemu('qemu-io', ...[...writes, ...zeroes].flatMap((each) => ['-c', each]), 'large.qcow2');
  const file = join(folder, 'large.qcow2');
  const { uri } = await peers.storageDaemon([
    '--blockdev',
    `driver=qcow2,node-name=n,file.driver=file,file.filename=${file}`,
    '--export',
    'type=nbd,id=e,node-name=n,name=,writable=on,bitmaps.0=b0',
  ]);
  const { data, zero, totals } = await plan({ source: uri, context: CONTEXT });
  const expected = new Bitmap({ size, granularity: data.granularity });
  for (let i = 0; i < 20; i++) if (i !== 1) expected.set(i * 51 * 2 ** 30, 64 * KIB);
  expect([...data.ranges()]).toEqual([...expected.ranges()]);
  expect(zero.dirtyBytes).toBe(1 * MIB + 64 * KIB);
  expect(totals.cleanBytes).toBe(size - data.dirtyBytes - zero.dirtyBytes);
});
