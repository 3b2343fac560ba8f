import { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { Context, DIRTY, isDirtyContext, Status } from '../extent/index.js';
import { alignDown, alignUp } from '../util/index.js';
import { Arena } from '../wasm/index.js';
import { type Range, type StatusWalk, walkStatus } from './status-walk.js';

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
  /** Where the bitmaps live. Default: the arena of this thread. */
  arena?: Arena | undefined;
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
  const { source, context, bitmap, signal } = options;
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
  const draft = new Draft(source, options);
  // Planning takes its time, and the caller's bitmap may change meanwhile: the plan is of this moment.
  const dirty = bitmap?.snapshot();
  try {
    if (dirty !== undefined) await draft.addDirty(dirty.ranges(), undefined, signal);
    else if (context !== undefined) await draft.addDirty(draft.whole, context, signal);
    else await draft.addAll(signal);
    return draft.finish();
  } catch (error) {
    draft.discard();
    throw error;
  } finally {
    dirty?.free();
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

  constructor(source: Device, options: PlanOptions) {
    const { size } = source;
    const { granularity = planGranularity(size), arena = Arena.default } = options;
    this.#source = source;
    this.#data = new Bitmap({ size, granularity, arena });
    this.#zero = new Bitmap({ size, granularity, arena });
    this.#totals = { size, cleanBytes: 0, dataBytes: 0, zeroBytes: 0, holeBytes: 0 };
  }

  /** All of the source, as a range; none where it has no bytes. */
  get whole(): Range[] {
    return this.#source.size === 0 ? [] : [{ offset: 0, length: this.#source.size }];
  }

  /** Plans all of the source: what is not data is zero. */
  async addAll(signal?: AbortSignal): Promise<void> {
    await this.#walk(this.whole, [Context.allocation], signal, (offset, length, [status]) => {
      if (!this.#count(length, status)) this.#data.set(offset, length);
    });
    this.#zero.setAll();
  }

  /** Plans these ranges, or only what a context calls dirty in them. */
  addDirty(ranges: Iterable<Range>, context?: string, signal?: AbortSignal): Promise<void> {
    const contexts = context === undefined ? [Context.allocation] : [Context.allocation, context];
    return this.#walk(ranges, contexts, signal, (offset, length, [status, dirty = DIRTY]) => {
      if (!(dirty & DIRTY)) return;
      if (this.#count(length, status)) this.#addZero(offset, offset + length);
      else this.#data.set(offset, length);
    });
  }

  /** A granule that is zero only in part is moved as data: its other part may be clean, and not zero. */
  #addZero(offset: number, end: number): void {
    const { size, granularity } = this.#zero;
    const from = alignUp(offset, granularity);
    const to = end === size ? size : alignDown(end, granularity);
    if (from >= to) {
      this.#data.set(offset, end - offset);
      return;
    }
    this.#zero.set(from, to - from);
    this.#data.set(offset, from - offset);
    this.#data.set(to, end - to);
  }

  /** Whether a range of this status reads as zero. */
  #count(length: number, status: number): boolean {
    const isZero = (status & Status.zero) !== 0;
    if (!isZero) this.#totals.dataBytes += length;
    else if (status & Status.hole) this.#totals.holeBytes += length;
    else this.#totals.zeroBytes += length;
    return isZero;
  }

  #walk(
    ranges: Iterable<Range>,
    contexts: readonly string[],
    signal: AbortSignal | undefined,
    visit: StatusWalk['visit'],
  ): Promise<void> {
    const refused = (error: LacunaError) => {
      this.#refusals++;
      this.#refusal = error.message;
    };
    return walkStatus({ device: this.#source, ranges, contexts, signal, visit, refused });
  }

  finish(): Plan {
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
