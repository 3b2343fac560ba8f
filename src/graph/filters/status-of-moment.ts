import { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { Context, DIRTY, ExtentList } from '../../extent/index.js';

/** The smallest cluster of an image. */
const UNIT = 512;
/** Of one answer. */
const MOST_EXTENTS = 4096;
/** The depth that is not noted: that of what the uppermost image holds. */
const TOP = 1;

/** What a disk showed in its metadata contexts at a moment, where it may show something else by now. */
export class StatusOfMoment {
  readonly #disk: BlockDevice;
  #shown: ReadonlyMap<string, Bitmap> = new Map();
  /** Where what was copied lay, by depth. */
  readonly #depths = new Map<number, Bitmap>();

  constructor(disk: BlockDevice) {
    this.#disk = disk;
  }

  get contexts(): readonly string[] {
    return [Context.allocation, ...(this.#hasDepth ? [Context.depth] : []), ...this.#shown.keys()];
  }

  get #hasDepth(): boolean {
    return this.#disk.capabilities.contexts.includes(Context.depth);
  }

  /** The moment is now. */
  begin(shown: ReadonlyMap<string, Bitmap> = new Map()): void {
    this.#shown = shown;
  }

  undoBegin(): void {
    this.free();
    this.#shown = new Map();
    this.#depths.clear();
  }

  free(): void {
    for (const bits of [...this.#shown.values(), ...this.#depths.values()]) bits.free();
  }

  /** A range is about to be changed, or not to be read from the disk any more. */
  async noteDepth(offset: number, end: number): Promise<void> {
    if (!this.#hasDepth) return;
    for (let at = offset; at < end; ) {
      const [list] = await this.#disk.someExtents(at, end - at, { contexts: [Context.depth] });
      for (let i = 0; i < list.count && at < end; i++) {
        const stop = Math.min(end, list.endAt(i));
        const depth = list.flagsAt(i);
        if (depth !== TOP) this.#bitsOf(depth).set(at, stop - at);
        at = stop;
      }
    }
  }

  /** Adds the depth that was noted in a range to a list that ends where that begins. */
  pushDepth(list: ExtentList, offset: number, end: number): void {
    for (let at = offset; at < end; ) {
      let depth = TOP;
      let stop = end;
      for (const [value, bits] of this.#depths) {
        const run = bits.status(at, stop - at);
        if (run.dirty) depth = value;
        stop = at + run.length;
      }
      list.push(stop - at, depth);
      at = stop;
    }
  }

  /** What a bitmap had at the moment, in the range or in the beginning of it. */
  dirty(context: string, offset: number, end: number): ExtentList {
    const bits = this.#shown.get(context)!;
    const list = new ExtentList(offset);
    while (list.end < end && list.count < MOST_EXTENTS) {
      const run = bits.status(list.end, end - list.end);
      list.push(run.length, run.dirty ? DIRTY : 0);
    }
    return list;
  }

  #bitsOf(depth: number): Bitmap {
    const known = this.#depths.get(depth);
    if (known !== undefined) return known;
    const bits = new Bitmap({ size: this.#disk.size, granularity: UNIT });
    this.#depths.set(depth, bits);
    return bits;
  }
}
