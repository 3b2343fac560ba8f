import { Bitmap } from '../../../bitmap/index.js';
import type { BlockDevice } from '../../../block/index.js';
import { planGranularity, walkPlan } from '../../../copy/plan/index.js';
import { Context } from '../../../extent/index.js';
import type { Arena } from '../../../wasm/index.js';

/** How a source is asked. */
export interface Gathering {
  readonly mode: 'full' | 'top';
  readonly signal: AbortSignal;
  /** Waits before each question, as long as none may be asked. */
  mayAsk(): Promise<void>;
  /** Told how far the source is known. */
  told(doneBytes: number): void;
}

/**
 * What counts of a disk: `found`, rounded outward, for what becomes dirty; and `rest`, which has all granules that hold anything else,
 * for what becomes clean.
 */
export class Gathered {
  readonly found: Bitmap;
  readonly rest: Bitmap;

  /** Nothing counts. @param finest bytes of the finest granule that is populated */
  constructor(size: number, finest: number, arena: Arena) {
    const granularity = Math.min(finest, planGranularity(size));
    this.found = new Bitmap({ size, granularity, arena });
    try {
      this.rest = new Bitmap({ size, granularity, arena });
    } catch (error) {
      this.found.free();
      throw error;
    }
    this.rest.setAll();
  }

  /**
   * Adds what a device says of itself.
   *
   * @returns why some of it counts that may not: its status is not known
   */
  async ask(
    source: BlockDevice,
    { mode, signal, mayAsk, told }: Gathering,
  ): Promise<readonly string[]> {
    const warnings = await walkPlan({
      scope: { mode, contexts: [], bitmaps: [] },
      source,
      arena: this.found.arena,
      signal,
      mayAsk,
      visit: (offset, length, isZero) => {
        told(offset + length);
        if (isZero && mode === 'full') return;
        this.found.set(offset, length);
        this.rest.reset(offset, length);
      },
    });
    told(source.size);
    const { contexts } = source.capabilities;
    // Without an answer all is taken for data.
    if (mode === 'full' && !contexts.includes(Context.allocation))
      return [...warnings, `${source.name} does not tell what it holds`];
    return warnings;
  }

  /** Adds bits. */
  add(bits: Bitmap): void {
    this.found.merge(bits);
    const others = bits.snapshot();
    try {
      others.setAll();
      others.subtract(bits);
      this.rest.intersect(others);
    } finally {
      others.free();
    }
  }

  addAll(): void {
    this.found.setAll();
    this.rest.resetAll();
  }

  /** What was written meanwhile may hold anything. */
  doubt(bits: Bitmap): void {
    this.found.merge(bits);
    this.rest.merge(bits);
  }

  free(): void {
    this.found.free();
    this.rest.free();
  }
}
