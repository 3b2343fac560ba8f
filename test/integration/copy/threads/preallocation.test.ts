import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createRawFile } from '#dist/block/index.js';
import { copy } from '#dist/copy/index.js';
import { fakeDevice, pattern } from '../../../support/fake-device.js';
import { runCli } from '../../../support/run-cli.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const MIB = 2 ** 20;
const folder = temporaryFolder();

const spaceOf = (path: string) => statSync(path).blocks * 512;

async function makeSource() {
  const source = fakeDevice(8 * MIB + 1);
  await source.write(3 * MIB, pattern(MIB));
  return source;
}

describe('preallocation', () => {
  it.each(['off', 'falloc', 'full'] as const)('%s takes the space that it says', async (mode) => {
    const path = join(folder, `${mode}.raw`);
    await createRawFile(path, 8 * MIB + 1, { preallocation: mode });
    expect(statSync(path).size).toBe(8 * MIB + 1);
    if (mode === 'off') expect(spaceOf(path)).toBe(0);
    else expect(spaceOf(path)).toBeGreaterThanOrEqual(8 * MIB + 1);
  });

  it.each(['falloc', 'full'] as const)('%s stays when the file is copied to', async (mode) => {
    const path = join(folder, `copied-${mode}.raw`);
    const source = await makeSource();
    const report = await copy({ source, target: path, preallocation: mode });
    expect(report).toMatchObject({ movedBytes: MIB, zeroedBytes: 0 });
    expect(spaceOf(path)).toBeGreaterThanOrEqual(8 * MIB + 1);
    const sparse = join(folder, 'sparse.raw');
    await copy({ source, target: sparse, preallocation: 'off' });
    expect(spaceOf(sparse)).toBe(MIB);
    execFileSync('cmp', [path, sparse]);
  });

  it('is refused for what is written in place, and by names that are none', async () => {
    const source = await makeSource();
    const target = fakeDevice(source.size);
    await expect(copy({ source, target, preallocation: 'full' })).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNSUPPORTED',
    });
    const path = join(folder, 'nope.raw');
    await expect(copy({ source, target: path, preallocation: 'metadata' })).rejects.toThrow(
      TypeError,
    );
    expect(() => copy({ source, target: path, preallocation: 'all' as 'full' })).toThrow(TypeError);
    expect(readdirSync(folder).filter((name) => name.startsWith('nope'))).toEqual([]);
  });

  it('ends, and leaves nothing, when the copy is cancelled', async () => {
    const path = join(folder, 'huge.raw');
    const signal = AbortSignal.timeout(20);
    const promise = createRawFile(path, 2 ** 40, {
      exclusive: true,
      preallocation: 'full',
      signal,
    });
    await expect(promise).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(existsSync(path)).toBe(false);
  });

  it('says what to do where there is no fallocate', async () => {
    const source = join(folder, 'off.raw');
    const target = join(folder, 'without.raw');
    const args = ['copy', source, target, '--preallocation'];
    const env = { LACUNA_FFI: 'off' };
    const refused = await runCli([...args, 'falloc'], { env });
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('use full') });
    expect((await runCli([...args, 'full'], { env })).code).toBe(0);
    expect(spaceOf(target)).toBeGreaterThanOrEqual(8 * MIB + 1);
  });
});
