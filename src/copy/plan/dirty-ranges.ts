/** What an incremental copy has to look at: the union of dirty bitmaps, or of the dirty contexts of a source. */

import { Bitmap } from '../../bitmap/bits/index.js';
import type { BlockDevice } from '../../block/index.js';
import type { LacunaError } from '../../errors/index.js';
import type { Range } from '../../extent/index.js';
import type { Arena } from '../../wasm/index.js';
import { planGranularity } from './granularity.js';
import { walkStatus } from './status-walk.js';

/** What is dirty in any of these bitmaps, as they are now. The caller frees it. */
export function dirtyInAny(bitmaps: readonly Bitmap[], size: number, arena: Arena): Bitmap {
  // A snapshot shares what the bitmap holds, which a merge into another granularity cannot.
  if (bitmaps.length === 1) return bitmaps[0].snapshot();
  const dirty = new Bitmap({ size, granularity: planGranularity(size), arena });
  try {
    for (const bitmap of bitmaps) dirty.merge(bitmap);
    return dirty;
  } catch (error) {
    dirty.free();
    throw error;
  }
}

/** Whatever a dirty context says of a range that is not "clean" is taken for dirty. */
export function isDirty(flags: number): boolean {
  return flags !== 0;
}

export interface DirtyQuestion {
  source: BlockDevice;
  contexts: readonly string[];
  arena: Arena;
  signal: AbortSignal | undefined;
  mayAsk: (() => Promise<void>) | undefined;
  refused(error: LacunaError): void;
}

/** What any of these contexts of the source calls dirty. The caller frees it. */
export async function askDirty(question: DirtyQuestion): Promise<Bitmap> {
  const { source, contexts, arena, signal, mayAsk, refused } = question;
  const { size } = source;
  const dirty = new Bitmap({ size, granularity: planGranularity(size), arena });
  try {
    await walkStatus({
      device: source,
      ranges: size === 0 ? [] : [{ offset: 0, length: size }],
      contexts,
      signal,
      mayAsk,
      refused,
      visit: (offset, length, flags) => {
        if (flags.some(isDirty)) dirty.set(offset, length);
      },
    });
    return dirty;
  } catch (error) {
    dirty.free();
    throw error;
  }
}

/** A gap between two dirty ranges is asked about too, where it is likely to hold no more extents than this. */
const GAP_EXTENTS = 64;

/**
 * No gap longer than this is asked about: what a server looks through to find that nothing is there does not
 * show in its answer. QEMU steps through an empty image by 32 MiB.
 */
const LONGEST_GAP = 32 * 1024 * 1024;

/** Before anything is known, one border between extents is expected in so many bytes. */
const FIRST_GUESS = 4 * 1024 * 1024;

/**
 * Chooses the ranges of a disk whose allocation is asked in one query each. Every dirty range is in one of
 * them, and nothing is asked of clean parts that are long; but where the disk is in few pieces, one query
 * over many dirty ranges and the gaps between them costs less than a query for each. How many pieces there
 * are is learnt from the answers, of which the walk tells here.
 */
export class Spans implements Iterable<Range> {
  readonly #dirty: Bitmap;
  #bytes = 0;
  #borders = 0;
  #end = -1;

  constructor(dirty: Bitmap) {
    this.#dirty = dirty;
  }

  /** Learns from an extent that the walk has visited. */
  seen(offset: number, length: number): void {
    // Extents of one answer adjoin; where a query begins is no border of the disk.
    if (offset === this.#end) this.#borders++;
    this.#end = offset + length;
    this.#bytes += length;
  }

  *[Symbol.iterator](): Generator<Range, undefined> {
    let from = -1;
    let end = -1;
    for (const { offset, length } of this.#dirty.ranges()) {
      if (from >= 0 && !this.#joins(from, end, offset)) {
        yield { offset: from, length: end - from };
        from = -1;
      }
      if (from < 0) from = offset;
      end = offset + length;
    }
    if (from >= 0) yield { offset: from, length: end - from };
  }

  /** Whether a span and the next dirty range are asked about together. */
  #joins(from: number, end: number, next: number): boolean {
    const reach = GAP_EXTENTS * (this.#bytes + FIRST_GUESS);
    // What was seen of a little says little about a lot, so spans grow with what has been seen.
    if (next - end > LONGEST_GAP) return false;
    return next - from <= reach && (next - end) * (this.#borders + 1) <= reach;
  }
}
