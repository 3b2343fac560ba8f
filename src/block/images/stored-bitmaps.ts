import { type Arena, DirtyBitmaps } from '../../bitmap/index.js';
import { geometryOf } from '../../qcow2/index.js';
import type { BlockDevice } from '../contract/index.js';
import { ImageBitmaps, readBitmapSections } from '../drivers/qcow2/bitmaps/index.js';
import { checkWritable } from '../drivers/qcow2/in-place/index.js';
import { HostFile, LiveHeader, readerOf, readHeader } from '../drivers/qcow2/io/index.js';
import { refuseCut, repairRefcounts } from '../drivers/qcow2/repair/index.js';
import { Allocator } from '../drivers/qcow2/write/index.js';
import type { OpenOptions } from '../open/index.js';

/** The bitmaps of an image, and what keeps them in its file where that is open for writing. */
export interface OpenedBitmaps {
  readonly bitmaps: DirtyBitmaps;
  readonly stored?: ImageBitmaps;
}

/** Reads which bitmaps the file of an image has, for a BitmapImage. */
export async function openStoredBitmaps(
  file: BlockDevice,
  {
    writable = false,
    arena,
    signal,
  }: Pick<OpenOptions, 'writable' | 'signal'> & { readonly arena?: Arena },
): Promise<OpenedBitmaps> {
  const found = await readHeader(file);
  const header = writable ? await repairRefcounts(file, found, signal) : found;
  const reader = readerOf(file);
  const { clusterSize } = geometryOf(header);
  const bitmaps = new DirtyBitmaps({ size: header.size, clusterSize, arena });
  if (!writable) {
    const options = { file: reader, readOnly: true, arena };
    bitmaps.register(...(await readBitmapSections(header, file.name, options)));
    return { bitmaps };
  }
  checkWritable(header, file.name);
  const host = new HostFile(file);
  const live = new LiveHeader(host, header);
  const allocator = await Allocator.open(host, live);
  await refuseCut({ header, file, allocator }, signal);
  const stored = await ImageBitmaps.open({ reader, file: host, header: live, allocator });
  stored.restore(bitmaps);
  return { bitmaps, stored };
}
