import { Bitmap } from '../../bitmap/index.js';
import { openBitmaps } from './bitmap-image.js';
import { createQcow2 } from './create.js';

/** Which bitmap is written into an image of its own. */
export interface ExportBitmapOptions {
  /** Its bits; unchanged. */
  readonly bitmap: Bitmap;
  /** What the bitmap is called in the image: 1 to 1023 bytes. */
  readonly name: string;
  /** Fail with errno EEXIST where there is a file already, and follow no symbolic link. Default false. */
  readonly exclusive?: boolean;
}

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
 * @throws LacunaError ERR_DEVICE_OPEN, ERR_DEVICE_LOCKED; ERR_QCOW2_UNSUPPORTED where the bits take more than 512 MiB.
 */
export async function exportBitmap(
  filename: string,
  { bitmap, name, exclusive }: ExportBitmapOptions,
): Promise<void> {
  if (!(bitmap instanceof Bitmap)) throw new TypeError(`bitmap must be a Bitmap, not ${bitmap}`);
  await createQcow2(filename, { size: bitmap.size, exclusive });
  const source = { driver: 'qcow2', file: { driver: 'file', filename } } as const;
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
