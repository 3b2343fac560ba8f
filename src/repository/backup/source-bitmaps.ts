/** The bitmaps in a source image that count from points of this repository. */
import fs from 'node:fs';
import type { Bitmap } from '../../bitmap/index.js';
import {
  type BlockDevice,
  fileOf,
  guardImage,
  imageOf,
  openBitmaps,
  type Qcow2Description,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { bitmapName, bitmapPrefix } from '../manifest/index.js';

/** The image that a source is, if its bitmaps can be used. */
export function bitmapImageOf({ description }: BlockDevice): Qcow2Description | undefined {
  const image = imageOf(description);
  if (image === undefined || fileOf(image.file) === undefined) return undefined;
  return image.snapshot === undefined ? image : undefined;
}

/** The bitmap of a source that can be used, or why none can. */
export type FoundBitmap =
  | {
      readonly name: string;
      readonly bitmap: Bitmap;
      /** Of the generation that it counts from. */
      readonly index: number;
    }
  | { readonly why: string };

/** @param generations of points, newest first; the first that a bitmap counts from is taken. */
export async function findBitmap(
  device: BlockDevice,
  repository: string,
  disk: string,
  generations: readonly string[],
): Promise<FoundBitmap> {
  const image = bitmapImageOf(device);
  if (image === undefined)
    return { why: 'only qcow2 images in files keep bitmaps that can be renewed' };
  await using bitmaps = await openBitmaps(image);
  const all = bitmaps.bitmaps.list();
  const names = generations.map((id) => bitmapName(repository, id, disk));
  const found = names.map((name) => all.find((info) => info.name === name)).find(Boolean);
  if (found === undefined)
    return { why: 'the image has no bitmap that counts from one of these points' };
  const { name } = found;
  if (found.inconsistent)
    return { why: `bitmap ${name} is inconsistent: a program did not close the image` };
  if (!found.recording) return { why: `bitmap ${name} is disabled, so that it may lack writes` };
  return { name, bitmap: await bitmaps.load(name), index: names.indexOf(name) };
}

/** Which file it was, and when it was changed last. */
export function fileStamp(image: Qcow2Description | undefined): string | undefined {
  const file = fileOf(image?.file);
  if (file === undefined) return undefined;
  const { dev, ino, size, mtimeNs, ctimeNs } = fs.statSync(file.filename, { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

/**
 * Makes an image count from a new point, in one change: the bitmaps of older points of this repository go. Nobody may have it
 * open.
 *
 * @param stamp of the file when it was read last: a file that changed since then lacks something in the point.
 * @throws LacunaError where that cannot be.
 */
export async function renewBitmap(
  image: Qcow2Description,
  { name, repository, stamp }: { name: string; repository: string; stamp: string | undefined },
): Promise<void> {
  const file = fileOf(image.file)!;
  const unguard = await guardImage(file.filename);
  try {
    if (fileStamp(image) !== stamp) {
      const message = `${file.filename} was written while it was backed up: use it only when the backup has ended`;
      throw new LacunaError('ERR_FILE_CHANGED', message, { device: file.filename });
    }
    const own = { driver: 'file', filename: file.filename, locking: 'off' } as const;
    await using opened = await openBitmaps({ driver: 'qcow2', file: own }, { writable: true });
    const { bitmaps } = opened;
    const old = bitmaps.list().filter((one) => one.name.startsWith(bitmapPrefix(repository)));
    for (const one of old) bitmaps.remove(one.name);
    bitmaps.add({ name, persistent: true });
    await opened.store();
  } finally {
    unguard();
  }
}
