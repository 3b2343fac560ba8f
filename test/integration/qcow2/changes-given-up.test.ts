/** Changes of an image that are ended half way, and what they leave. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { amendQcow2, createQcow2, openDevice, resizeImage } from 'lacuna';
import { describe, expect, test } from 'vitest';
import { firesAfter } from '../../support/fires-after.js';
import { run } from '../../support/peers.js';
import { qemuBytes, qemuIo } from '../../support/qemu-images.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const IMAGE = 'disk.qcow2';

workInNewFolders();

async function checked() {
  const told = JSON.parse(await run('qemu-img', ['check', '--output=json', IMAGE]));
  return [told.leaks ?? 0, told.corruptions ?? 0, told['allocated-clusters'] ?? 0];
}

/** Ends a change at each of its steps, until it is not ended any more; how often it was. */
async function endEverywhere(
  change: (signal: AbortSignal) => Promise<unknown>,
  judge: () => Promise<void>,
): Promise<number> {
  for (let looks = 0; ; looks++) {
    const before = readFileSync(IMAGE);
    try {
      await change(firesAfter(looks));
      return looks;
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_ABORTED' });
    }
    await judge();
    writeFileSync(IMAGE, before);
  }
}

describe('a disk that was to become larger', () => {
  test.each([
    ['metadata', {}],
    ['falloc', { clusterSize: 4096 }],
    ['full', { extendedL2: true, clusterSize: 16_384 }],
  ] as const)('keeps its size, and maps nothing more: %s', async (preallocation, options) => {
    const size = 3 * MIB + 512;
    await createQcow2(IMAGE, { ...options, size });
    await qemuIo(IMAGE, ['write -P 1 1M 2M']);
    const before = await checked();
    const shown = await qemuBytes(IMAGE);
    const ends = await endEverywhere(
      (signal) => resizeImage(IMAGE, 9 * MIB, { preallocation, signal }),
      async () => {
        expect(await checked()).toEqual(before);
        expect((await qemuBytes(IMAGE)).equals(shown)).toBe(true);
      },
    );
    expect(ends).toBeGreaterThan(1);
    expect((await checked()).slice(0, 2)).toEqual([0, 0]);
    expect(
      (await qemuBytes(IMAGE)).equals(Buffer.concat([shown, Buffer.alloc(6 * MIB - 512)])),
    ).toBe(true);
  });

  test('keeps its data file as long as that was', async () => {
    await createQcow2(IMAGE, { size: MIB, dataFile: 'data.raw' });
    const how = { preallocation: 'full', signal: firesAfter(3) } as const;
    await expect(resizeImage(IMAGE, 9 * MIB, how)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(statSync('data.raw').size).toBe(MIB);
    expect((await checked()).slice(0, 2)).toEqual([0, 0]);
  });
});

describe('an image that was to be of version 2', () => {
  test('is sound and shows the same, wherever that is ended', async () => {
    writeFileSync('base.raw', Buffer.alloc(2 * MIB, 9));
    const backing = { filename: 'base.raw', format: 'raw' };
    await createQcow2(IMAGE, { size: 2 * MIB, clusterSize: 4096, backing });
    await qemuIo(IMAGE, ['write -z 0 32k', 'write -z 1M 32k']);
    const shown = await qemuBytes(IMAGE);
    const ends = await endEverywhere(
      (signal) => amendQcow2(IMAGE, { version: 2, signal }),
      async () => {
        expect((await checked()).slice(0, 2)).toEqual([0, 0]);
        expect((await qemuBytes(IMAGE)).equals(shown)).toBe(true);
      },
    );
    expect(ends).toBeGreaterThan(8);
    expect((await qemuBytes(IMAGE)).equals(shown)).toBe(true);
  });

  test('gives back what bitmaps took that are not valid any more', async () => {
    await createQcow2(IMAGE, { size: MIB });
    await run('qemu-img', ['bitmap', '--add', IMAGE, 'b']);
    await qemuIo(IMAGE, ['write -P 3 0 64k']);
    const bytes = readFileSync(IMAGE);
    // As a program leaves it that does not know of bitmaps.
    bytes.writeBigUInt64BE(0n, 88);
    writeFileSync(IMAGE, bytes);
    await amendQcow2(IMAGE, { version: 2 });
    expect(await checked()).toEqual([0, 0, 1]);
  });

  test('keeps its refcounts where they have to move, and another option changes with it', async () => {
    const size = 12 * MIB;
    writeFileSync('base.raw', Buffer.alloc(size, 9));
    const backing = { filename: 'base.raw', format: 'raw' };
    await createQcow2(IMAGE, { size, clusterSize: 512, lazyRefcounts: true, backing });
    {
      await using device = await openDevice(IMAGE, { writable: true });
      await device.zero(0, size);
    }
    const table = () => readFileSync(IMAGE).subarray(48, 60);
    const before = table();
    await amendQcow2(IMAGE, { version: 2, lazyRefcounts: false });
    expect(table().equals(before)).toBe(false);
    expect((await checked()).slice(0, 2)).toEqual([0, 0]);
    expect((await qemuBytes(IMAGE)).equals(Buffer.alloc(size))).toBe(true);
  });
});
