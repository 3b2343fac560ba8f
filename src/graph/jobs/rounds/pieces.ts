import type { Range } from '../../../extent/index.js';

/** Taken at once. */
const PIECE = 1024 * 1024;
/** Of zeroes, which cost next to nothing; short enough that nobody waits long for the range. */
const ZERO_PIECE = 64 * PIECE;

/** A part of a disk that is copied, or zeroed in the target. */
export interface Piece extends Range {
  readonly kind: 'data' | 'zero';
}

/** Ranges in pieces. */
export function* piecesOf(ranges: Iterable<Range>, kind: Piece['kind']): Generator<Piece> {
  const most = kind === 'data' ? PIECE : ZERO_PIECE;
  for (const { offset, length } of ranges) {
    for (let at = offset; at < offset + length; ) {
      // Pieces end at multiples, so that two of them do not share a granule.
      const end = Math.min(offset + length, at - (at % most) + most);
      yield { offset: at, length: end - at, kind };
      at = end;
    }
  }
}
