/** Where a disk would show something else if another device lay below it. */
import type { BlockDevice } from '../block/index.js';
import { Context, type ExtentList, Status, visitTogether } from '../extent/index.js';
import type { JobControl } from '../job/index.js';

/** What differs: bytes as the disk shows them, lent until the loop goes on. */
export interface Difference {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface DifferencesOptions {
  /** Steers the search. */
  readonly job: Pick<JobControl, 'next' | 'signal'>;
  /** Told up to which byte of the disk all is known. */
  readonly told?: (doneBytes: number) => void;
  /** Only what the device below holds in its own top layer: all else that it shows is below the disk already. */
  readonly topOnly?: boolean;
}

/** Bytes compared at once, and the unit in which what differs is told. */
const PIECE = 1024 * 1024;
const UNIT = 64 * 1024;
/** How much of the disk's status is asked for at once. */
const WINDOW = 2 ** 34;

/**
 * Finds what an image shows and does not hold, where the device that will be below it shows something else.
 *
 * @param image an image; it may be written while it is gone through, as far as that changes nothing of what it shows.
 * @param below undefined where nothing will be below it.
 */
export async function* differences(
  image: BlockDevice,
  below: BlockDevice | undefined,
  options: DifferencesOptions,
): AsyncGenerator<Difference> {
  const { job, told } = options;
  const buffers = { old: Buffer.alloc(PIECE), fresh: Buffer.alloc(PIECE) };
  for (let start = 0; start < image.size; start += WINDOW) {
    const end = Math.min(image.size, start + WINDOW);
    await job.next();
    for (const { offset, length } of await shownRanges(image, below, { start, end }, options)) {
      for (let at = offset; at < offset + length; at += PIECE) {
        told?.(at);
        const range = { at, length: Math.min(PIECE, offset + length - at) };
        await job.next(range.length);
        yield* differencesIn(image, below, range, buffers);
      }
    }
    told?.(end);
  }
}

/** The ranges that the image does not hold, but for those that read as zero now and will. */
async function shownRanges(
  image: BlockDevice,
  below: BlockDevice | undefined,
  { start, end }: { start: number; end: number },
  { job: { signal }, topOnly = false }: DifferencesOptions,
) {
  const contexts = [Context.allocation, Context.depth];
  const lists = await image.extents(start, end - start, { contexts, signal });
  const there = Math.min(end, below?.size ?? 0);
  const ranges: { offset: number; length: number }[] = [];
  const visit = (leavesOut: (flags: readonly number[]) => boolean) => {
    return (offset: number, length: number, flags: readonly number[]) => {
      if (flags[1] !== 1 && !leavesOut(flags)) ranges.push({ offset, length });
    };
  };
  const wasZero = (flags: readonly number[]) => (flags[0] & Status.zero) !== 0;
  if (below === undefined || there <= start) {
    if (!topOnly) visitTogether(lists, end, visit(wasZero));
    return ranges;
  }
  const fresh = await statusBelow(below, { start, there, end }, topOnly, signal);
  const staysZero = (flags: readonly number[]) => wasZero(flags) && (flags[2] & Status.zero) !== 0;
  visitTogether(
    [...lists, ...fresh],
    end,
    visit((flags) => staysZero(flags) || (topOnly && flags[3] !== 1)),
  );
  return ranges;
}

/** Behind the end of what is below all is zero. */
async function statusBelow(
  below: BlockDevice,
  { start, there, end }: { start: number; there: number; end: number },
  withDepth: boolean,
  signal?: AbortSignal,
): Promise<ExtentList[]> {
  const contexts = withDepth ? [Context.allocation, Context.depth] : [Context.allocation];
  const [status, depth] = await below.extents(start, there - start, { contexts, signal });
  status.push(end - there, Status.zero);
  depth?.push(end - there, 0);
  return depth === undefined ? [status] : [status, depth];
}

async function* differencesIn(
  image: BlockDevice,
  below: BlockDevice | undefined,
  { at, length }: { at: number; length: number },
  buffers: { old: Buffer; fresh: Buffer },
): AsyncGenerator<Difference> {
  const old = buffers.old.subarray(0, length);
  const fresh = buffers.fresh.subarray(0, length);
  await image.read(at, old);
  const there = Math.max(0, Math.min(length, (below?.size ?? 0) - at));
  fresh.fill(0, there);
  if (there > 0) await below?.read(at, fresh.subarray(0, there));
  for (let from = 0; from < length; ) {
    // Up to the next multiple of the unit, so that no cluster is filled up twice.
    const to = Math.min(length, from + UNIT - ((at + from) % UNIT));
    if (old.compare(fresh, from, to, from, to) !== 0) {
      yield { offset: at + from, bytes: old.subarray(from, to) };
    }
    from = to;
  }
}
