import { settleAll } from '../../../util/index.js';

/** Pieces under way at the same time. */
const LANES = 8;

/** Works on pieces side by side. Where one fails, no more are begun, and it fails as that one did when all have ended. */
export async function inLanes<Piece>(
  pieces: Iterable<Piece>,
  work: (piece: Piece) => Promise<void>,
): Promise<void> {
  const next = pieces[Symbol.iterator]();
  let hasFailed = false;
  const lane = async () => {
    for (;;) {
      if (hasFailed) return;
      const { value, done } = next.next();
      if (done) return;
      try {
        await work(value);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  await settleAll(Array.from({ length: LANES }, lane));
}
