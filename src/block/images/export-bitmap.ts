import { lstatSync } from 'node:fs';
import { Bitmap } from '../../bitmap/bits/index.js';
import { LacunaError } from '../../errors/index.js';
import { fileError, Replacement, syncFolder } from '../../files/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import { A_PATH } from '../contract/index.js';
import { guardImage } from '../drivers/file/index.js';
import { createQcow2 } from '../drivers/qcow2/create/index.js';
import { openBitmaps } from './bitmap-image.js';

/** Which bitmap is written into an image of its own. */
export interface ExportBitmapOptions {
  /** Its bits; unchanged. */
  readonly bitmap: Bitmap;
  /** What the bitmap is called in the image: 1 to 1023 bytes. */
  readonly name: string;
  /** Fail with errno EEXIST where there is a file already, and follow no symbolic link. Default false. */
  readonly exclusive?: boolean;
}

const checkExportBitmapOptions = optionCheck<ExportBitmapOptions>({
  bitmap: { needed: 'the Bitmap that is written' },
  name: { needed: 'what the bitmap is called in the image' },
  exclusive: 'flag',
});

/**
 * Makes a small qcow2 image that holds no data, only a bitmap. This is how bits get into a running QEMU: it opens the
 * image as a node, and `block-dirty-bitmap-merge` takes the bitmap from there into one of a disk of the same size.
 *
 *     blockdev-add              { "driver": "qcow2", "node-name": "bits", "read-only": true,
 *                                 "file": { "driver": "file", "filename": FILENAME } }
 *     block-dirty-bitmap-merge  { "node": DISK, "target": TARGET, "bitmaps": [{ "node": "bits", "name": NAME }] }
 *     blockdev-del              { "node-name": "bits" }
 *
 * A disk whose size is no multiple of 512 is taken for one that ends at the next, as QEMU takes it.
 *
 * The file appears under its name when it is whole.
 *
 * @throws LacunaError ERR_DEVICE_OPEN, ERR_DEVICE_LOCKED, ERR_FILE_CHANGED; ERR_QCOW2_UNSUPPORTED where the bits take more than 512 MiB.
 */
export async function exportBitmap(filename: string, options: ExportBitmapOptions): Promise<void> {
  checkGiven('exportBitmap', 'filename', filename, A_PATH);
  checkExportBitmapOptions('exportBitmap', options);
  const { bitmap, name, exclusive } = options;
  if (!(bitmap instanceof Bitmap)) throw new TypeError(`bitmap must be a Bitmap, not ${bitmap}`);
  const made = begin(filename, exclusive);
  const unguard = made.replaces ? await guard(made) : () => {};
  try {
    await createQcow2(made.path, { size: bitmap.size, inode: made.inode });
    await addBitmap(made, bitmap, name);
    made.finish();
    await syncFolder(made.name);
  } finally {
    made.removeUnfinished();
    made.close();
    unguard();
  }
}

/** What is not whole never has the name. */
function begin(filename: string, exclusive = false): Replacement {
  const request = { action: 'create', device: filename, making: true };
  try {
    if (exclusive && lstatSync(filename, { throwIfNoEntry: false })) {
      throw fileError('ERR_DEVICE_OPEN', request, 'EEXIST');
    }
    return Replacement.create(filename);
  } catch (error) {
    if (error instanceof LacunaError) throw error;
    throw fileError('ERR_DEVICE_OPEN', request, error as Error);
  }
}

async function guard(made: Replacement): Promise<() => void> {
  try {
    return await guardImage(made.name);
  } catch (error) {
    made.removeUnfinished();
    throw error;
  }
}

async function addBitmap(
  { path: filename, inode }: Replacement,
  bitmap: Bitmap,
  name: string,
): Promise<void> {
  const source = { driver: 'qcow2', file: { driver: 'file', filename, inode } } as const;
  await using image = await openBitmaps(source, { writable: true, arena: bitmap.arena });
  const bits = bitmap.snapshot();
  try {
    bits.resize(image.bitmaps.size);
    image.bitmaps.add({ name, granularity: bits.granularity, persistent: true, disabled: true });
    image.bitmaps.merge(name, [bits]);
    await image.store();
  } finally {
    bits.free();
  }
}
