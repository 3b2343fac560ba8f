/** Targets that are said by the description of what was open before, which says which file that was. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { type DeviceDescription, openDevice } from '#dist/block/index.js';
import { copy, copyFromStream } from '#dist/copy/index.js';
import { contentOf, pattern } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SIZE = 1024 * 1024;
const folder = temporaryFolder();
const source = join(folder, 'source.raw');
writeFileSync(source, pattern(SIZE));

/** Copies to a new file, opens it, and tells its description. */
async function made(name: string): Promise<DeviceDescription> {
  const target = join(folder, name);
  await copy({ source, target });
  await using device = await openDevice(target);
  return { ...device.description!, 'read-only': false };
}

describe('a target that was open before', () => {
  it.each(['disk.raw', 'disk.qcow2'])('is made anew: %s', async (name) => {
    const target = await made(name);
    writeFileSync(source, pattern(SIZE, 7));
    await copy({ source, target });
    await using device = await openDevice(join(folder, name));
    expect(Buffer.compare(await contentOf(device), pattern(SIZE, 7))).toBe(0);
  });

  it('is made anew from a stream', async () => {
    const target = await made('streamed.raw');
    await copyFromStream(Readable.from([pattern(SIZE, 8)]), target);
    expect(Buffer.compare(readFileSync(join(folder, 'streamed.raw')), pattern(SIZE, 8))).toBe(0);
  });
});
