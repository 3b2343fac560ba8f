/** The images that QEMU makes for other tests: what it spoils or refuses is told from what we do wrong. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it, vi } from 'vitest';
import {
  createImage,
  expectRepairable,
  expectSound,
  qemuImg,
  qemuIo,
  SpoiltImage,
  soundImage,
} from '../../support/qemu-images.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');
const told = vi.spyOn(console, 'log').mockImplementation(() => {});
beforeEach(() => void told.mockClear());

async function makeImage(options: readonly string[] = []): Promise<string> {
  await createImage(path, '1M', options);
  await qemuIo(path, ['write -P 7 0 128k']);
  return path;
}

/** Changes bytes of the image. */
function patch(change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

/** Takes away the flag of a cluster that says it is in use once. */
const spoil = () => patch((bytes) => (bytes[Number(bytes.readBigUInt64BE(40))] ^= 0x80));
const markAsCorrupt = () => patch((bytes) => (bytes[79] |= 2));

it('another image is made where QEMU spoilt the first, the same one in every run', async () => {
  const runs = [1, 2].map(async () => {
    const seeds: number[] = [];
    await soundImage(
      new Random(5),
      async ({ seed }) => {
        seeds.push(seed);
        return 'x';
      },
      async () => {
        if (seeds.length < 3) throw new SpoiltImage('unusable');
      },
    );
    return seeds;
  });
  const [first, second] = await Promise.all(runs);
  expect(new Set(first).size).toBe(3);
  expect(second).toEqual(first);
});

it('an image is made again where its check finds an error', async () => {
  let made = 0;
  await soundImage(new Random(1), async () => {
    await makeImage();
    if (made++ === 0) spoil();
    return path;
  });
  expect(made).toBe(2);
  expect(told).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('OFLAG_COPIED'));
});

it('a test fails where QEMU seems to spoil one image after the other', async () => {
  let made = 0;
  const making = soundImage(new Random(1), async () => {
    made++;
    throw new SpoiltImage('of no use');
  });
  await expect(making).rejects.toThrow(/10 images in a row.*of no use/s);
  expect(made).toBe(10);
});

it('an error that is not about an image is passed on at once', async () => {
  const making = soundImage(new Random(1), async () => {
    throw new Error('a bug of the test');
  });
  await expect(making).rejects.toThrow('a bug of the test');
});

it('an image that QEMU finds corrupt when it writes or lists it is spoilt', async () => {
  await makeImage();
  markAsCorrupt();
  await expect(qemuIo(path, ['write 0 64k'])).rejects.toBeInstanceOf(SpoiltImage);
  await expect(qemuImg(['snapshot', '-c', 's', path])).rejects.toBeInstanceOf(SpoiltImage);
  await expect(expectRepairable(path)).rejects.toBeInstanceOf(SpoiltImage);
});

it('an image in which QEMU finds an error while it runs is spoilt from there on', async () => {
  await makeImage();
  // The L2 table is said to be where the header is.
  patch((bytes) => {
    const l1 = Number(bytes.readBigUInt64BE(40));
    bytes.writeBigUInt64BE((1n << 63n) | 0x200n, l1);
  });
  const writing = qemuIo(path, ['write 0 64k', 'write 64k 64k']);
  await expect(writing).rejects.toBeInstanceOf(SpoiltImage);
  await expect(writing).rejects.toThrow('No medium found');
});

it('an image in order, but for a part that cannot be read, is spoilt', async () => {
  await createImage(path, '1M');
  await qemuIo(path, ['write -c -P 7 0 64k']);
  await expectSound(path);
  // qemu-img check does not look into compressed clusters.
  patch((bytes) => {
    const l2 = bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0xff_ffff_ffff_fe00n;
    const entry = bytes.readBigUInt64BE(Number(l2));
    bytes.fill(0xff, Number(entry & (2n ** 54n - 1n)));
  });
  await qemuImg(['check', '-q', path]);
  await expect(expectSound(path)).rejects.toThrow(/Input\/output error/);
});

it('a killed image may be repaired; one that shows something else afterwards is spoilt', async () => {
  await createImage(path, '1M', ['lazy_refcounts=on']);
  await qemuIo(path, ['write -P 7 0 128k']).catch(() => {});
  patch((bytes) => (bytes[79] |= 1));
  spoil();
  await expect(expectSound(path)).rejects.toBeInstanceOf(SpoiltImage);
  await expectRepairable(path);
});
