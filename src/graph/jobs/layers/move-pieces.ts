import type { JobControl } from '../../../job/index.js';
import { settleAll } from '../../../util/index.js';
import type { Piece } from './layer-plan.js';

/** Pieces under way at the same time. */
const LANES = 8;

/** What becomes of a piece that could not be moved: the job fails with an error, or a human is asked about it. */
export interface PieceFailure {
  readonly error: Error;
  readonly policy: 'report' | 'stop';
}

/** How pieces are moved. */
export interface PieceMover {
  take(piece: Piece): Promise<void>;
  /** What a failure of {@link take} means. */
  failureOf(error: unknown): PieceFailure;
  done(piece: Piece): void;
}

/** Moves pieces, each again and again where its policy says so. Between the attempts nothing is held. */
export async function movePieces(
  pieces: Iterable<Piece>,
  control: JobControl,
  mover: PieceMover,
): Promise<void> {
  const next = pieces[Symbol.iterator]();
  let hasFailed = false;
  const lane = async () => {
    for (let one = next.next(); !one.done && !hasFailed; one = next.next()) {
      try {
        await takeAtLast(one.value, control, mover);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
      mover.done(one.value);
    }
  };
  await settleAll(Array.from({ length: LANES }, lane));
}

async function takeAtLast(piece: Piece, control: JobControl, mover: PieceMover): Promise<void> {
  for (;;) {
    await control.next(piece.isZero ? 0 : piece.length);
    try {
      return await mover.take(piece);
    } catch (thrown) {
      const { error, policy } = mover.failureOf(thrown);
      if (policy === 'report') throw error;
      await control.waitAbout(error);
    }
  }
}
