import { Lanes } from '../../../util/index.js';

/** Pieces under way at the same time. */
const LANES = 8;

/** Works on pieces side by side. Where one fails, no more are begun, and it fails as that one did when all have ended. */
export async function inLanes<Piece>(
  pieces: Iterable<Piece>,
  work: (piece: Piece) => Promise<void>,
): Promise<void> {
  const next = pieces[Symbol.iterator]();
  await new Lanes().run({
    count: LANES,
    step: async () => {
      const { value, done } = next.next();
      if (!done) await work(value);
      return !done;
    },
  });
}
