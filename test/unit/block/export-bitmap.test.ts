/** The file that a bitmap is exported to: whole, or not there. */
import fs from 'node:fs';
import { join } from 'node:path';
import { exportBitmap } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { beforeEach, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const top = temporaryFolder();
const bitmap = new Bitmap({ size: 2 ** 20, granularity: 65536 });
let folder: string;
let path: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(top, 'test-'));
  path = join(folder, 'bits.qcow2');
});

describe('exportBitmap', () => {
  it('leaves nothing under the name, nor beside it, where it fails half way', async () => {
    await expect(exportBitmap(path, { bitmap, name: 'x'.repeat(2000) })).rejects.toThrow();
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  it('replaces what a link leads to, and keeps its mode, unless it is to be exclusive', async () => {
    fs.writeFileSync(join(folder, 'real'), 'old', { mode: 0o600 });
    fs.symlinkSync('real', path);
    const exclusive = exportBitmap(path, { bitmap, name: 'b', exclusive: true });
    await expect(exclusive).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN', errno: 'EEXIST' });
    expect(fs.readFileSync(path, 'utf8')).toBe('old');
    await exportBitmap(path, { bitmap, name: 'b' });
    expect(fs.readlinkSync(path)).toBe('real');
    const { size, mode } = fs.statSync(path);
    expect([size > 65536, mode & 0o777]).toEqual([true, 0o600]);
    expect(fs.readdirSync(folder)).toEqual(['bits.qcow2', 'real']);
  });

  it('follows no link to where nothing is yet, where it is to be exclusive', async () => {
    fs.symlinkSync('victim', path);
    const exclusive = exportBitmap(path, { bitmap, name: 'b', exclusive: true });
    await expect(exclusive).rejects.toMatchObject({ errno: 'EEXIST' });
    expect(fs.readdirSync(folder)).toEqual(['bits.qcow2']);
  });
});
