import type { Bitmap } from '../../../bitmap/index.js';

/** Taken at once. */
const PIECE = 1024 * 1024;
/** Of zeroes, which cost next to nothing; short enough that nobody waits long for the range. */
const ZERO_PIECE = 64 * PIECE;

/** A part of a disk that is copied, or zeroed in the target. */
export interface Piece<Disk> {
  readonly disk: Disk;
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
}

/** What a bitmap has, in pieces. */
export function* piecesOf<Disk>(
  disk: Disk,
  bitmap: Bitmap,
  kind: Piece<Disk>['kind'],
): Generator<Piece<Disk>> {
  const most = kind === 'data' ? PIECE : ZERO_PIECE;
  for (const { offset, length } of bitmap.ranges()) {
    for (let at = offset; at < offset + length; ) {
      // Pieces end at multiples, so that two of them do not share a granule.
      const end = Math.min(offset + length, at - (at % most) + most);
      yield { disk, offset: at, length: end - at, kind };
      at = end;
    }
  }
}
