import { join } from 'node:path';
import { Bitmap } from 'lacuna/bitmap';
import { describe, expect, test } from 'vitest';
import { Device, MemoryDriver } from '#dist/block/index.js';
import { copy, digest } from '#dist/copy/index.js';
import { repositoryOperations } from '#dist/repository/layout/index.js';
import {
  GatheredDigests,
  LeafChain,
  LeafFile,
  writeLeaves,
  ZERO_LEAF,
} from '#dist/repository/leaves/index.js';
import { Random } from '#dist/testing/index.js';
import { firstSeed } from '../../support/long-run.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const BLOCK = 64 * 1024;
let made = 0;

/** A disk of so many bytes, with random data in some blocks. */
async function randomDisk(size: number, random: Random): Promise<Device> {
  const device = new Device(new MemoryDriver({ size }));
  for (let i = 0; i < 12; i++) {
    const offset = random.below(size);
    await device.write(offset, random.bytes(Math.min(size - offset, 1 + random.below(1000))));
  }
  return device;
}

/** Leaves of all blocks in which a disk differs from the one below, and of one that does not. */
async function leavesOf(device: Device, below: readonly LeafFile[]): Promise<LeafFile> {
  const path = join(folder, `${++made}.leaves`);
  const digests = new GatheredDigests(device.size, path);
  const held = new Bitmap({ size: device.size, granularity: BLOCK });
  held.setAll();
  const onBlock = (block: number, bytes: Uint8Array) => digests.add(block, bytes);
  await copy({ source: device, target: { driver: 'null' }, flush: false, onBlock });
  const chain = below.length === 0 ? undefined : new LeafChain(below);
  const zero = new GatheredDigests(device.size, path);
  for (let block = 0; block * BLOCK < device.size; block++) {
    const old = chain?.digestOf(block) ?? zero.digestOf(block);
    const isSame = old.equals(digests.digestOf(block));
    const offset = block * BLOCK;
    if (isSame && block % 7 !== 0) held.reset(offset, Math.min(BLOCK, device.size - offset));
  }
  const file = new GatheredDigests(12345, path);
  const state = writeLeaves({ path, held, digests, below: chain, file }, repositoryOperations);
  for (const each of [digests, zero, file, held]) each.free();
  return LeafFile.open(path, state);
}

/** The blocks of a disk whose digests are not that of zeroes, one by one. */
function blocksWithData(chain: LeafChain): number[] {
  return Array.from({ length: chain.blocks }, (_, block) => block).filter(
    (block) => !chain.digestOf(block).equals(ZERO_LEAF),
  );
}

describe('a chain of leaves gives the digest of its disk', () => {
  // Around the ends of blocks, of parts of 256 blocks, and with shrinking and growing in between.
  const MiB = 2 ** 20;
  test.each([
    [[BLOCK]],
    [[5, BLOCK + 1, 3 * BLOCK]],
    [[16 * MiB, 16 * MiB + 1, 16 * MiB - 1]],
    [[40 * MiB, 17 * MiB + 77, 40 * MiB, 3 * MiB, 33 * MiB]],
    [[70 * MiB, 70 * MiB, 32 * MiB, 80 * MiB]],
  ])('for sizes of %j', async (sizes) => {
    const random = new Random(firstSeed());
    let files: LeafFile[] = [];
    for (const size of sizes) {
      const device = await randomDisk(size, random);
      files = [await leavesOf(device, files), ...files];
      const chain = new LeafChain(files);
      expect(chain.root()).toBe((await digest(device)).digest);
      expect([...chain.dataBlocks()]).toEqual(blocksWithData(chain));
      const middle = Math.floor(chain.blocks / 2);
      const later = blocksWithData(chain).filter((block) => block >= middle);
      expect([...chain.dataBlocks(middle, chain.blocks + 1000)]).toEqual(later);
    }
    for (const file of files) file.close();
  });
});
