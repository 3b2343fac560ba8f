/** Disks whose size is no multiple of 512, and data files, as images have them. */
import { mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { copy, createQcow2, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { beforeEach, describe, expect, test } from 'vitest';
import { run } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SIZE = 1_000_001;
const GRANULE = 65_536;
const folderOfAll = temporaryFolder();
let folder: string;
let source: string;
beforeEach(() => {
  folder = mkdtempSync(join(folderOfAll, 'test-'));
  source = join(folder, 'odd.raw');
  writeFileSync(source, Buffer.alloc(SIZE, 'odd'));
});

/** The disk with a change in its last bytes, and the bitmap that knows of it. */
function change(): Bitmap {
  const fd = openSync(source, 'r+');
  writeSync(fd, Buffer.alloc(1000, 'new'), 0, 1000, SIZE - 1000);
  const bitmap = new Bitmap({ size: SIZE, granularity: GRANULE });
  bitmap.set(SIZE - 1000, 1000);
  return bitmap;
}

async function expectSame(image: string): Promise<void> {
  // QEMU calls a raw file that is shorter by less than a sector as long as the image.
  expect(await run('qemu-img', ['compare', '-F', 'raw', image, source])).toContain('identical');
  expect(await run('qemu-img', ['check', image])).toContain('No errors');
}

describe('an increment of a disk whose size is no multiple of 512', () => {
  test.each([{}, { verify: true }])('goes into the image that was made of it, %j', async (how) => {
    const target = join(folder, 'disk.qcow2');
    await copy({ source, target });
    using bitmap = change();
    const report = await copy({ source, target, bitmap, ...how });
    expect(report.movedBytes).toBeLessThanOrEqual(2 * GRANULE);
    await expectSame(target);
  });

  test('and into a new image over that', async () => {
    const base = join(folder, 'base.qcow2');
    const target = join(folder, 'top.qcow2');
    await copy({ source, target: base });
    using bitmap = change();
    const backing = { filename: base, format: 'qcow2' };
    await copy({ source, target, bitmap, image: { backing } });
    await expectSame(target);
  });

  test('but into no image of another size', async () => {
    const target = join(folder, 'disk.qcow2');
    await createQcow2(target, { size: SIZE + 1024 });
    using bitmap = change();
    await expect(copy({ source, target, bitmap })).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
    });
  });
});

describe('the data file of a new image is found by QEMU and by us, from any folder', () => {
  test.each([
    ['copy', async (target: string) => runCli(['copy', '-o', 'data_file=d.raw', source, target])],
    ['createQcow2', (target: string) => createQcow2(target, { size: SIZE, dataFile: 'd.raw' })],
  ])('made by %s with a relative name', async (what, make) => {
    const target = join(folder, 'disk.qcow2');
    await make(target);
    const elsewhere = join(folder, 'elsewhere');
    mkdirSync(elsewhere);
    const info = await run('qemu-img', ['info', '--output=json', target]);
    expect(JSON.parse(info)['format-specific'].data['data-file']).toBe(join(folder, 'd.raw'));
    const { code } = await runCli(['map', '../disk.qcow2'], { cwd: elsewhere });
    expect(code).toBe(0);
    await using device = await openDevice(target);
    const bytes = Buffer.alloc(SIZE);
    await device.read(0, bytes);
    const expected = what === 'copy' ? readFileSync(source) : Buffer.alloc(SIZE);
    expect(bytes.equals(expected)).toBe(true);
    const raw = join(elsewhere, 'x.raw');
    await run('qemu-img', ['convert', '-O', 'raw', target, raw]);
    expect(readFileSync(raw).subarray(0, SIZE).equals(expected)).toBe(true);
  });
});
