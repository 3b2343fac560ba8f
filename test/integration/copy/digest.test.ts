import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { openDevice } from '#dist/block/index.js';
import { copy, digest } from '#dist/copy/index.js';
import { DIGEST_BLOCK, DigestTree, digestBlocks } from '#dist/copy/move/digest-tree.js';
import { ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const folder = temporaryFolder();
const page = readFileSync(new URL('../../../docs/digest.md', import.meta.url), 'utf8');
const [, reference] = /```python\n(.*?)```/s.exec(page) as RegExpExecArray;
const { capabilities } = fakeDevice(1);

/** The digests of files by the Python program that docs/digest.md shows. */
function byPython(paths: readonly string[]): string[] {
  const script = `${reference}
import os, sys
for path in sys.argv[1:]:
    with open(path, 'rb') as file: print(digest(file, os.path.getsize(path)))`;
  return execFileSync('python3', ['-c', script, ...paths], { encoding: 'utf8' })
    .trim()
    .split('\n');
}

function vector(disk: string): string {
  const row = page.split('\n').find((line) => line.startsWith(`| ${disk} |`));
  return /lacuna1:[0-9a-f]{64}/.exec(row as string)?.[0] as string;
}

describe('digest', () => {
  const disks: Record<string, Uint8Array> = {
    'no bytes': new Uint8Array(),
    '1 byte, zero': Uint8Array.of(0),
    '1 byte, `01`': Uint8Array.of(1),
    '65536 bytes, each `ff`': new Uint8Array(65536).fill(255),
    '65537 bytes, each `ff`': new Uint8Array(65537).fill(255),
    '1 MiB, zero but for byte 700000, which is `01`': new Uint8Array(2 ** 20).fill(
      1,
      700000,
      700001,
    ),
  };

  it('ends at once where it is stopped, and reads no more', async () => {
    let reads = 0;
    const source = fakeDevice(64 * MIB, {
      extents: undefined,
      read: async () => {
        reads++;
        await sleep(5);
      },
    });
    const job = digest(source, { requests: 1, requestSize: 64 * KIB });
    await expect.poll(() => job.progress().doneBytes).toBeGreaterThan(0);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    const before = reads;
    await sleep(50);
    expect(reads).toBe(before);
  });

  it.each(Object.entries(disks))('is that of the documented vector: %s', async (disk, bytes) => {
    const path = join(folder, 'vector.raw');
    writeFileSync(path, bytes);
    const { digest: found } = await digest(path);
    expect(found).toBe(vector(disk));
    expect(byPython([path])).toEqual([found]);
  });

  it('of an empty petabyte reads nothing', async () => {
    const report = await digest({ driver: 'null', size: 2 ** 50 });
    expect(report).toMatchObject({ size: 2 ** 50, readBytes: 0, skippedBytes: 2 ** 50 });
    expect(report.digest).toBe(vector('1 PiB (2^50), zero'));
  });

  it('is that of the Python reference, whatever is allocated, by however many threads', async () => {
    let disk = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 * 64 * KIB }),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 300 * KIB }), fc.boolean())),
        fc.constantFrom(0, 1, 2),
        async (size, writes, threads) => {
          const bytes = new Uint8Array(size);
          const device = fakeDevice(size);
          for (const [at, length, isZero] of writes) {
            const offset = at % size;
            const part = pattern(Math.min(length, size - offset), at).fill(0, isZero ? 0 : length);
            bytes.set(part, offset);
            await device.write(offset, part);
          }
          const path = join(folder, `random-${disk++}.raw`);
          writeFileSync(path, bytes);
          const [expected] = byPython([path]);
          expect((await digest(device)).digest).toBe(expected);
          expect((await digest(path, { threads, requestSize: 64 * KIB })).digest).toBe(expected);
        },
      ),
      { numRuns: 8 },
    );
  });

  it('is exact where data begins and ends inside a block, and where nothing may be tested for zero', async () => {
    const path = join(folder, 'pieces.raw');
    const fd = openSync(path, 'w');
    ftruncateSync(fd, 3 * KIB * KIB + 100);
    for (const page of [3, 21, 22, 100, 110, 767])
      writeSync(fd, pattern(4096), 0, 4096, page * 4096);
    closeSync(fd);
    const [expected] = byPython([path]);
    expect((await digest(path)).digest).toBe(expected);
    const target = join(folder, 'copied.raw');
    for (const threads of [0, 1]) {
      const options = { digest: true, detectZeroes: 'off', rate: 2 ** 30, threads } as const;
      expect((await copy({ source: path, target, ...options })).digest).toBe(expected);
    }
  });

  it('does not depend on what a source calls data', async () => {
    const bytes = pattern(300 * KIB);
    bytes.fill(0, 10, 200 * KIB);
    const exact = fakeDevice(bytes.length);
    const coarse = fakeDevice(bytes.length, {
      capabilities: { ...capabilities, exactStatus: false },
      extents: async (offset, length) => [ExtentList.of(offset, length, Status.data)],
    });
    await coarse.write(0, bytes);
    await exact.write(0, bytes.subarray(0, 10));
    await exact.write(200 * KIB, bytes.subarray(200 * KIB));
    const reports = [await digest(exact), await digest(coarse)];
    expect(reports[0].digest).toBe(reports[1].digest);
    expect(reports[0].readBytes).toBeLessThan(reports[1].readBytes);
  });

  it('tells disks apart by one bit and by their size', async () => {
    const found = new Set<string>();
    for (const size of [0, 1, 65535, 65536, 65537, 131072, 196608, 2 ** 40, 2 ** 40 + 512]) {
      found.add((await digest(fakeDevice(size))).digest);
    }
    const device = fakeDevice(2 ** 40);
    await device.write(2 ** 39 + 77, Uint8Array.of(64));
    found.add((await digest(device)).digest);
    expect(found.size).toBe(10);
  });

  it('fails with the error of the read that failed', async () => {
    const source = fakeDevice(KIB * KIB, {
      extents: undefined,
      read: async () => {
        throw new Error('no such luck');
      },
    });
    await expect(digest(source)).rejects.toThrow('no such luck');
  });
});

describe('DigestTree', () => {
  it('holds little when blocks come about in order, and comes to the same in any order', () => {
    const size = 2 ** 34;
    const data = new Bitmap({ size, granularity: DIGEST_BLOCK });
    for (let i = 0; i < 6000; i++) data.set((i * 7919 * DIGEST_BLOCK * 3) % size, 1);
    const blocks = [...data.ranges()].flatMap(({ offset, length }) =>
      Array.from({ length: length / DIGEST_BLOCK }, (_, i) => offset / DIGEST_BLOCK + i),
    );
    const block = Buffer.alloc(DIGEST_BLOCK);
    const build = (order: readonly number[]) => {
      const tree = new DigestTree(size, data);
      let most = 0;
      expect(tree.root()).toBeUndefined();
      for (const index of order) {
        block.writeUInt32LE(index);
        digestBlocks(index * DIGEST_BLOCK, block, tree);
        most = Math.max(most, tree.waiting);
      }
      expect(tree.waiting).toBe(0);
      return { most, root: tree.root() };
    };
    const inOrder = build(blocks);
    // Four threads, each in a window of its own, and lanes that overtake each other.
    const quarter = Math.ceil(blocks.length / 4);
    const woven = blocks.map((_, i) => blocks[(i % 4) * quarter + Math.floor(i / 4)] ?? -1);
    const fourAtOnce = build(woven.filter((index) => index >= 0));
    const reversed = build(blocks.toReversed());
    expect(inOrder.root).toMatch(/^lacuna1:[0-9a-f]{64}$/);
    expect([fourAtOnce.root, reversed.root]).toEqual([inOrder.root, inOrder.root]);
    expect(inOrder.most).toBeLessThan(20);
    expect(fourAtOnce.most).toBeLessThan(80);
    data.free();
  });
});

describe('copy with a digest', () => {
  it('reports the digest of the source, and of the target with it', async () => {
    const bytes = pattern(3 * KIB * KIB + 700);
    bytes.fill(0, 100 * KIB, 900 * KIB);
    const source = join(folder, 'source.raw');
    const target = join(folder, 'target.raw');
    writeFileSync(source, bytes);
    for (const threads of [0, 2]) {
      const report = await copy({ source, target, digest: true, threads });
      expect(report.threads).toBe(threads);
      expect(byPython([source, target])).toEqual([report.digest, report.digest]);
    }
  });

  it('leaves a hole where the source has one, although whole blocks are read', async () => {
    const source = fakeDevice(KIB * KIB, {
      extents: async () => {
        const list = new ExtentList(0);
        list.push(256 * KIB, Status.hole | Status.zero);
        list.push(4 * KIB, Status.data);
        list.push(764 * KIB, Status.hole | Status.zero);
        return [list];
      },
    });
    await source.write(256 * KIB, pattern(4 * KIB));
    const target = join(folder, 'sparse.raw');
    const report = await copy({ source, target, digest: true });
    expect(report.movedBytes).toBe(4 * KIB);
    expect(report.digest).toBe((await digest(source)).digest);
  });

  it('is refused where no digest can be made', async () => {
    const source = fakeDevice(KIB);
    const bitmap = new Bitmap({ size: KIB, granularity: 512 });
    expect(() => copy({ source, target: source, bitmap, digest: true })).toThrow(TypeError);
    expect(() => copy({ source, target: source, requestSize: 4096, digest: true })).toThrow(
      RangeError,
    );
    const device = await openDevice({ driver: 'null', size: KIB });
    expect((await copy({ source, target: device })).digest).toBeUndefined();
  });
});
