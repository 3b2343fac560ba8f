/**
 * The data plane of a comparison, in one thread: claim a window of what either side holds as data, then read both
 * sides piece by piece, several at once, until nothing is left before the first difference.
 */
import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { abortedError, throwIfAborted } from '../../errors/index.js';
import { Lanes, settleAll } from '../../util/index.js';
import type { ArenaBlock } from '../../wasm/index.js';
import type { FirstDifference } from '../control/index.js';
import type { Shared } from './parts.js';

/** One of the two devices. Outside of `data`, and behind its end, it reads as zero. */
export interface ComparedSide {
  device: BlockDevice;
  data: Bitmap;
}

/** How one thread drives its two devices; plain data, so that it can be posted to a worker. */
export interface ComparePace {
  /** Pieces in flight. */
  requests: number;
  /** Bytes of one piece. */
  requestSize: number;
  /** Bytes of the plan that are claimed at once. */
  windowSize: number;
}

export interface ComparerOptions {
  a: ComparedSide;
  b: ComparedSide;
  pace: ComparePace;
  /** What has to be compared; empty at the end. */
  plan: Bitmap;
  first: FirstDifference;
  shared: Shared;
}

/** Of a limited comparison no shorter piece is made. */
const SHORTEST_PIECE = 4096;

/** Runs of a window. */
const WINDOW_RUNS = 1024;

/** Compares until the plan is empty, a difference is found before all that is left, or a request fails. */
export async function compareShare(options: ComparerOptions): Promise<void> {
  const { pace, shared } = options;
  const { control, signal } = shared;
  const todo = pieces(options);
  try {
    await new Lanes().run({
      count: pace.requests,
      open: () => twoSlots(options),
      close: (slots) => slots.forEach((slot) => void slot.free()),
      step: (slots) => compareNext(options, todo, slots),
    });
  } catch (error) {
    control.stop();
    throw signal.aborted ? abortedError(signal) : error;
  }
  throwIfAborted(signal);
}

/** Where a lane reads the two sides. */
function twoSlots({
  pace: { requestSize },
  shared: { arena },
}: Pick<ComparerOptions, 'pace' | 'shared'>) {
  const left = arena.allocate(requestSize);
  try {
    return [left, arena.allocate(requestSize)];
  } catch (error) {
    left.free();
    throw error;
  }
}

/** Compares the next piece; false where no piece is left that matters. */
async function compareNext(
  options: ComparerOptions,
  todo: Generator<[offset: number, length: number], undefined>,
  slots: readonly ArenaBlock[],
): Promise<boolean> {
  const { first, shared } = options;
  const { control } = shared;
  if (control.paused) await control.mayGo();
  const next = control.stopped ? undefined : todo.next().value;
  // Windows are claimed in order: behind a difference there is nothing earlier to find.
  if (next === undefined || next[0] > first.offset) return false;
  if (control.isLimited && !(await control.mayMove(next[1]))) return false;
  try {
    await comparePiece(options, slots, ...next);
  } catch (error) {
    // Other threads must not go on for long.
    control.stop();
    throw error;
  }
  return true;
}

/** Claims windows and cuts them into pieces, at multiples of their size, which suits the rate. */
function* pieces({
  plan,
  pace: { windowSize, requestSize },
  shared: { control },
}: Pick<ComparerOptions, 'plan' | 'pace' | 'shared'>): Generator<
  [offset: number, length: number],
  undefined
> {
  const window = new Float64Array(2 * WINDOW_RUNS);
  for (;;) {
    const runs = plan.claim(window, { maxBytes: windowSize });
    if (runs === 0) return;
    for (let i = 0; i < 2 * runs; i += 2) {
      const end = window[i] + window[i + 1];
      for (let at = window[i]; at < end; ) {
        const size = Math.min(requestSize, Math.max(SHORTEST_PIECE, control.pieceSize));
        const next = Math.min(end, at - (at % size) + size);
        yield [at, next - at];
        at = next;
      }
    }
  }
}

async function comparePiece(
  { a, b, first, shared: { arena, counters, signal } }: Omit<ComparerOptions, 'plan' | 'pace'>,
  [left, right]: readonly ArenaBlock[],
  offset: number,
  length: number,
): Promise<void> {
  const reads = [
    readSide(a, offset, left.bytes.subarray(0, length), signal),
    readSide(b, offset, right.bytes.subarray(0, length), signal),
  ];
  await settleAll(reads);
  const [inA, inB] = await Promise.all(reads);
  counters.requests += Number(inA) + Number(inB);
  counters.movedBytes += length;
  if (inA && inB) {
    const [one, other] = [left.bytes.subarray(0, length), right.bytes.subarray(0, length)];
    if (Buffer.compare(one, other) === 0) return;
    first.note(offset + one.findIndex((byte, i) => byte !== other[i]));
  } else if (inA || inB) {
    const only = inA ? left : right;
    if (arena.isZero(only, 0, length)) return;
    first.note(offset + only.bytes.findIndex((byte) => byte !== 0));
  }
}

/** Reads a piece of one side; false, and nothing read, where all of it is known to be zero. */
async function readSide(
  { device, data }: ComparedSide,
  offset: number,
  target: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  const inside = Math.min(target.length, device.size - offset);
  if (inside <= 0 || data.nextDirty(offset, offset + inside) === -1) return false;
  target.fill(0, inside);
  await device.read(offset, target.subarray(0, inside), { signal });
  return true;
}
