import type { Bitmap } from '../../../bitmap/index.js';
import type { BlockDevice } from '../../../block/index.js';
import { Context, type Range } from '../../../extent/index.js';
import { kindsOf, walkExtents } from '../../device/index.js';
import { Cells } from '../../text/index.js';
import type { PictureRow } from '../../view/index.js';

/** Bytes of the disk, and how many cells to draw it in. */
export interface CellsSize {
  readonly size: number;
  readonly count: number;
}

/** A device by what is allocated. */
export async function allocationOf(
  device: BlockDevice,
  size: CellsSize,
  signal: AbortSignal,
): Promise<PictureRow> {
  const kinds = kindsOf(Context.allocation);
  const cells = new Cells({ ...size, kinds: kinds.names.length });
  for await (const ranges of walkExtents(device, { contexts: [kinds.context], signal })) {
    for (const { offset, length, flags } of ranges) {
      cells.add(offset, length, kinds.kindOf(flags[0]));
    }
  }
  return { kinds, cells };
}

/** Where a device holds data, in order. */
export async function dataExtents(device: BlockDevice, signal: AbortSignal): Promise<Range[]> {
  const { context, kindOf } = kindsOf(Context.allocation);
  const extents: Range[] = [];
  for await (const ranges of walkExtents(device, { contexts: [context], signal })) {
    extents.push(...ranges.filter(({ flags }) => kindOf(flags[0]) === 0));
  }
  return extents;
}

/** A bitmap by what is dirty. */
export function dirtinessOf(bitmap: Bitmap, size: CellsSize): PictureRow {
  const kinds = kindsOf(Context.dirtyPrefix);
  const cells = new Cells({ ...size, kinds: kinds.names.length });
  let clean = 0;
  for (const { offset, length } of bitmap.ranges()) {
    cells.add(clean, offset - clean, 1);
    cells.add(offset, length, 0);
    clean = offset + length;
  }
  cells.add(clean, bitmap.size - clean, 1);
  return { kinds, cells };
}
