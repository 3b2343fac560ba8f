/** The commands that ask what would be moved, or note it, without moving anything. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { BitmapFile } from '#dist/bitmap/index.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 2 ** 20;
const SIZE = 64 * MIB;
const top = temporaryFolder();
const peers = usePeers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

function qemu(program: string, ...args: string[]): string {
  return execFileSync(program, args, { cwd: folder, encoding: 'utf8' });
}

const writes = (...commands: string[]) => commands.flatMap((command) => ['-c', command]);

/** Two layers: data below, and above it data, zeroes and what was trimmed. */
function makeChain(): void {
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', `${SIZE}`);
  qemu('qemu-io', ...writes('write -q -P 1 0 8M', 'write -q -P 2 40M 1M'), 'base.qcow2');
  const below = ['-b', 'base.qcow2', '-F', 'qcow2'];
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', ...below, 'top.qcow2');
  const above = ['write -q -P 3 4M 256k', 'write -q -z 6M 512k', 'write -q -P 4 50M 64k'];
  qemu('qemu-io', ...writes(...above), 'top.qcow2');
}

/** Serves an image with its allocation depth. */
async function serve(image: string) {
  const node = `driver=qcow2,node-name=n,file.driver=file,file.filename=${join(folder, image)}`;
  const args = [
    '--blockdev',
    node,
    '--export',
    'type=nbd,id=e,node-name=n,name=,allocation-depth=on',
  ];
  return await peers.storageDaemon(args);
}

interface MapEntry {
  start: number;
  length: number;
  depth: number;
  zero: boolean;
}

/** What `qemu-img map` says is allocated in the top layer, as ranges. */
function topLayer(image: string): MapEntry[] {
  const map = JSON.parse(qemu('qemu-img', 'map', '-U', '--output=json', image)) as MapEntry[];
  return map.filter(
    ({ depth, present }: MapEntry & { present?: boolean }) => depth === 0 && present !== false,
  );
}

describe('lacuna copy --dry-run', () => {
  test('tells what a full copy and one of the top layer would move', async () => {
    makeChain();
    const { uri } = await serve('top.qcow2');
    const full = await runCli(['copy', '--dry-run', '--json', uri]);
    expect(full.code).toBe(0);
    // The zeroes above hide data below; the new data is partly over old data.
    const dataBytes = 8 * MIB + MIB - 512 * KIB + 64 * KIB;
    expect(JSON.parse(full.stdout)).toMatchObject({ type: 'plan', size: SIZE, dataBytes });

    const above = await runCli(['copy', '--dry-run', '--json', '--mode', 'top', uri]);
    const totals = JSON.parse(above.stdout);
    expect(totals).toMatchObject({ dataBytes: 320 * KIB, warnings: [] });
    // QEMU calls zeroes without a place in the file holes.
    expect(totals.zeroBytes + totals.holeBytes).toBe(512 * KIB);
    const listed = topLayer('top.qcow2').reduce((sum, { length }) => sum + length, 0);
    expect(totals.dataBytes + totals.zeroBytes + totals.holeBytes).toBe(listed);
  });

  test('touches no target, and says in words what it found', async () => {
    makeChain();
    const { uri } = await serve('top.qcow2');
    const target = join(folder, 'target.raw');
    const { code, stdout } = await runCli(['copy', '--dry-run', uri, target]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/would move 8\.56 MiB/);
    expect(existsSync(target)).toBe(false);
    const misuse = await runCli(['copy', uri]);
    expect(misuse.code).toBe(2);
    expect(misuse.stderr).toContain('target');
  });
});

describe('lacuna copy --mode top', () => {
  test('makes a copy of the layers below equal to the whole', async () => {
    makeChain();
    qemu('qemu-img', 'convert', '-O', 'raw', 'base.qcow2', 'target.raw');
    const { uri } = await serve('top.qcow2');
    const target = join(folder, 'target.raw');
    const copied = await runCli(['copy', '--json', '--mode', 'top', uri, target]);
    expect(copied.code).toBe(0);
    const report = JSON.parse(copied.stdout.trimEnd().split('\n').at(-1)!);
    expect(report).toMatchObject({ movedBytes: 320 * KIB, zeroedBytes: 512 * KIB });
    qemu('qemu-img', 'compare', '-q', '-U', '-f', 'raw', '-F', 'qcow2', 'target.raw', 'top.qcow2');
  });

  test('says so where the source does not tell its layers', async () => {
    makeChain();
    const image = join(folder, 'top.qcow2');
    const { uri } = await peers.qemuNbd(['-r', '-f', 'qcow2', image]);
    const target = join(folder, 'target.raw');
    qemu('qemu-img', 'convert', '-O', 'raw', 'base.qcow2', 'target.raw');
    const { code, stderr } = await runCli(['copy', '--mode', 'top', uri, target]);
    expect(code).toBe(0);
    expect(stderr).toContain('qemu:allocation-depth');
    qemu('qemu-img', 'compare', '-q', '-U', '-f', 'raw', '-F', 'qcow2', 'target.raw', 'top.qcow2');
  });
});

describe('lacuna populate', () => {
  const dirtyRanges = (file: string, name: string) =>
    [...BitmapFile.open(file, { size: SIZE }).load(name).ranges()].map(({ offset, length }) => [
      offset,
      length,
    ]);

  test('marks what qemu-img map lists, at the granularity asked', async () => {
    makeChain();
    const { uri } = await serve('top.qcow2');
    const output = join(folder, 'disk.bitmaps');
    const done = await runCli([
      'populate',
      '--mode',
      'top',
      '-g',
      '64K',
      '--json',
      '-o',
      output,
      uri,
    ]);
    expect(done.code).toBe(0);
    expect(JSON.parse(done.stdout)).toMatchObject({ name: 'allocated', granularity: 65536 });
    const listed = topLayer('top.qcow2').map(({ start, length }) => [start, length]);
    expect(dirtyRanges(output, 'allocated')).toEqual(listed);
  });

  test('joins several sources, adds to what is in the file, and keeps other bitmaps', async () => {
    const output = join(folder, 'disk.bitmaps');
    const [a, b, c] = ['a.raw', 'b.raw', 'c.raw'].map((name) => join(folder, name));
    for (const file of [a, b, c]) qemu('truncate', '-s', `${SIZE}`, file);
    qemu('qemu-io', '-f', 'raw', ...writes('write -q -P 1 1M 64k'), a);
    qemu('qemu-io', '-f', 'raw', ...writes('write -q -P 1 9M 64k'), b);
    expect(
      (await runCli(['populate', '-o', output, '--name', 'both', '-g', '1M', a, b])).code,
    ).toBe(0);
    expect((await runCli(['populate', '-o', output, '--name', 'other', a])).code).toBe(0);
    qemu('qemu-io', '-f', 'raw', ...writes('write -q -P 1 20M 4k'), c);
    expect((await runCli(['populate', '-o', output, '--name', 'both', c])).stdout).toContain(
      '3 MiB',
    );
    expect(dirtyRanges(output, 'both')).toEqual([
      [MIB, MIB],
      [9 * MIB, MIB],
      [20 * MIB, MIB],
    ]);
    expect(dirtyRanges(output, 'other')).toEqual([[MIB, 64 * KIB]]);
  });
});
