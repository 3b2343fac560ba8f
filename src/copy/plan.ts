import { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { Context, DIRTY, isDirtyContext, Status } from '../extent/index.js';
import { type Range, walkStatus } from './status-walk.js';

/** Bytes of a device by what is known of them. A byte counts once, in the first that fits. */
export interface PlanTotals {
  size: number;
  /** Not dirty: left alone by an incremental copy. */
  cleanBytes: number;
  /** Must be read. */
  dataBytes: number;
  /** Allocated and reads as zero. */
  zeroBytes: number;
  /** Not allocated and reads as zero. */
  holeBytes: number;
}

/** What must be done to make a target equal to a source. No granule is in both bitmaps. */
export interface Plan {
  /** Granules to read and write. */
  data: Bitmap;
  /** Granules that must read as zero afterwards. */
  zero: Bitmap;
  totals: PlanTotals;
  warnings: string[];
}

export interface PlanOptions {
  source: Device;
  /** Only what this context of the source marks as dirty. */
  context?: string | undefined;
  /** Only what is dirty in this bitmap. */
  bitmap?: Bitmap | undefined;
  /** Bytes; a power of two. Default: the finest that keeps the plan small, see {@link planGranularity}. */
  granularity?: number | undefined;
  signal?: AbortSignal | undefined;
}

const FINEST = 512;
const MOST_GRANULES = 2 ** 35;

/**
 * The finest granularity that numbers a disk's granules below 2^35: 512 bytes up to 16 TiB. Runs of any
 * length cost the same memory, so fine granules are cheap; and they keep a plan exact to the sector.
 */
export function planGranularity(size: number): number {
  let granularity = FINEST;
  while (size / granularity > MOST_GRANULES) granularity *= 2;
  return granularity;
}

/**
 * Finds out what has to move, without moving it. From allocation alone (a full copy) everything that does
 * not read as zero is `data`; with a context or a bitmap (an incremental copy) only what is dirty counts.
 * What is dirty and reads as zero is in `zero`, never left out: the target may hold something else there.
 */
export async function plan(options: PlanOptions): Promise<Plan> {
  const { source, context, bitmap } = options;
  if (context !== undefined && bitmap !== undefined) {
    throw new TypeError('a plan is made from a context or from a bitmap, not from both');
  }
  if (context !== undefined && !isDirtyContext(context)) {
    throw new TypeError(
      `an incremental plan needs a ${Context.dirtyPrefix}NAME context, not ${context}`,
    );
  }
  if (bitmap !== undefined && bitmap.size !== source.size) {
    throw new LacunaError(
      'ERR_BITMAP_MISMATCH',
      `The bitmap is of ${bitmap.size} bytes and ${source.name} of ${source.size}: they must be the same size`,
      { device: source.name },
    );
  }
  const draft = new Draft(source, options.granularity ?? planGranularity(source.size));
  try {
    const whole = source.size === 0 ? [] : [{ offset: 0, length: source.size }];
    await draft.add(bitmap?.ranges() ?? whole, context, options.signal);
    return draft.finish();
  } catch (error) {
    draft.discard();
    throw error;
  }
}

/** A plan in the making. */
class Draft {
  readonly #source: Device;
  readonly #data: Bitmap;
  readonly #zero: Bitmap;
  readonly #totals: PlanTotals;
  #refusals = 0;
  #refusal = '';

  constructor(source: Device, granularity: number) {
    this.#source = source;
    this.#data = new Bitmap({ size: source.size, granularity });
    this.#zero = new Bitmap({ size: source.size, granularity });
    this.#totals = { size: source.size, cleanBytes: 0, dataBytes: 0, zeroBytes: 0, holeBytes: 0 };
  }

  /** Plans these ranges, all of them or only what `context` calls dirty. */
  add(ranges: Iterable<Range>, context?: string, signal?: AbortSignal): Promise<void> {
    const contexts = context === undefined ? [Context.allocation] : [Context.allocation, context];
    return walkStatus({
      device: this.#source,
      ranges,
      contexts,
      signal,
      visit: (offset, length, flags) => {
        if (context === undefined || flags[1] & DIRTY) this.#mark(offset, length, flags[0]);
      },
      refused: (error) => {
        this.#refusals++;
        this.#refusal = error.message;
      },
    });
  }

  #mark(offset: number, length: number, status: number): void {
    if (!(status & Status.zero)) {
      this.#data.set(offset, length);
      this.#totals.dataBytes += length;
      return;
    }
    this.#zero.set(offset, length);
    if (status & Status.hole) this.#totals.holeBytes += length;
    else this.#totals.zeroBytes += length;
  }

  finish(): Plan {
    // A granule that is zero only in part is data: both bitmaps were rounded outward.
    this.#zero.subtract(this.#data);
    const { size, dataBytes, zeroBytes, holeBytes } = this.#totals;
    this.#totals.cleanBytes = size - dataBytes - zeroBytes - holeBytes;
    return {
      data: this.#data,
      zero: this.#zero,
      totals: this.#totals,
      warnings: this.#refusals === 0 ? [] : [this.#degraded()],
    };
  }

  #degraded(): string {
    return `${this.#source.name} refused ${this.#refusals} status queries, so some holes were taken for data (${this.#refusal})`;
  }

  discard(): void {
    this.#data.free();
    this.#zero.free();
  }
}
