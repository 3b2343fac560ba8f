/** What a copy that fails leaves beside the name that its target was going to have. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MemoryDriver } from '#dist/block/index.js';
import { copy } from '#dist/copy/index.js';
import { freeArena } from '#dist/copy/threads/arenas.js';
import { LacunaError } from '#dist/errors/index.js';
import { Arena } from '#dist/wasm/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KIB = 1024;
const SIZE = 4096 * KIB;
const folder = temporaryFolder();
const path = join(folder, 'disk.raw');

/** A source of data that cannot be read from `badFrom` on. */
async function brokenSource(badFrom: number) {
  const memory = new MemoryDriver({ size: SIZE });
  await memory.write(0, pattern(SIZE));
  return fakeDevice(SIZE, {
    read: async (offset, target) => {
      if (offset < badFrom) return await memory.read(offset, target);
      throw new LacunaError('ERR_DEVICE_IO', 'broken', { errno: 'EIO' });
    },
    extents: (offset, length, contexts) => memory.extents(offset, length, contexts),
  });
}

describe('a copy to a new file that fails', () => {
  it('leaves nothing where nothing was written', async () => {
    const source = await brokenSource(0);
    await expect(copy({ source, target: path, threads: 0 })).rejects.toThrow('broken');
    expect(readdirSync(folder)).toEqual([]);
  });

  it('leaves nothing where there was no memory to begin', async () => {
    freeArena(Arena.create({ maximumBytes: 512 * KIB }));
    const source = await brokenSource(SIZE);
    const failed = copy({ source, target: path, threads: 0, requestSize: 1024 * KIB });
    await expect(failed).rejects.toMatchObject({ code: 'ERR_ARENA_FULL' });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('leaves what was written, under a name that says what it is', async () => {
    const source = await brokenSource(2048 * KIB);
    const failed = copy({ source, target: path, threads: 0, requests: 1, requestSize: 512 * KIB });
    await expect(failed).rejects.toThrow('broken');
    expect(readdirSync(folder)).toEqual([expect.stringMatching(/^disk\.raw\.partial-/)]);
  });
});
