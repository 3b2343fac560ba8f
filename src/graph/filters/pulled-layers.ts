import {
  type BlockDevice,
  type PullSource,
  RangeLock,
  type TakenBytes,
} from '../../block/index.js';
import { Context, readsAsZero } from '../../extent/index.js';
import { alignDown, alignUp } from '../../util/index.js';
import { isZero } from './is-zero.js';
import type { ZeroSettings } from './kept-copies.js';
import { onSide } from './side-error.js';

/** Copied at once. */
const PIECE = 1024 * 1024;
/** At least so much is copied, and kept for itself. */
const LEAST_UNIT = 65_536;

interface Run {
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/**
 * What shines through an image from layers below, and is copied into it while it is written.
 *
 * A copy has its range for itself from the question what is still missing in the image to the end of the write; changes of others
 * share theirs. So a copy never writes over what somebody has written since. What is in the image stays there, so a reader who
 * finds nothing missing needs no hold.
 */
export class PulledLayers implements PullSource {
  readonly #image: BlockDevice;
  readonly #layers: () => number;
  readonly #zeroes: ZeroSettings;
  readonly #locks = new RangeLock();
  readonly #unit: number;

  /**
   * @param layers how many layers are copied from, the image itself counted.
   * @param zeroes what reads as zero where the image holds nothing is left out with `targetIsZero`.
   */
  constructor(image: BlockDevice, layers: () => number, zeroes: ZeroSettings) {
    this.#image = image;
    this.#zeroes = zeroes;
    this.#layers = layers;
    this.#unit = Math.max(LEAST_UNIT, image.limits.preferred);
  }

  /** Resolves when nobody copies or changes anything. */
  get idle(): Promise<unknown> {
    return this.#locks.idle;
  }

  /** Runs a change of the image while nothing is copied there. */
  beside<T>(offset: number, length: number, change: () => Promise<T>): Promise<T> {
    return this.#hold(offset, offset + length, false, change);
  }

  async take(offset: number, length: number, signal?: AbortSignal): Promise<TakenBytes> {
    const { size } = this.#image;
    const start = alignDown(offset, this.#unit);
    const end = Math.min(size, alignUp(offset + length, this.#unit));
    const taken = { movedBytes: 0, zeroedBytes: 0 };
    if (!(await this.#isMissing(start, end, signal))) return taken;
    await this.#hold(start, end, true, async () => {
      const runs = await this.#missing(start, end, signal);
      for (const run of runs) {
        const movedBytes = run.isZero ? await this.#zero(run) : await this.#copy(run, signal);
        taken.movedBytes += movedBytes;
        taken.zeroedBytes += run.length - movedBytes;
      }
    });
    return taken;
  }

  async #isMissing(start: number, end: number, signal?: AbortSignal): Promise<boolean> {
    return (await this.#missing(start, end, signal)).length > 0;
  }

  /** What is to be copied: it lies in one of the layers below, and not in the image. */
  async #missing(start: number, end: number, signal?: AbortSignal): Promise<Run[]> {
    const image = this.#image;
    const contexts = [Context.allocation, Context.depth];
    if (!image.capabilities.contexts.includes(Context.depth)) return [];
    const layers = this.#layers();
    const runs: Run[] = [];
    for (let at = start; at < end; ) {
      const options = { contexts, ...(signal && { signal }) };
      const asked = image.someExtents(at, end - at, options);
      const [status, depths] = await onSide('source', asked);
      const stop = Math.min(end, status.end, depths.end);
      while (at < stop) {
        const [i, j] = [status.indexOf(at), depths.indexOf(at)];
        const to = Math.min(stop, status.endAt(i), depths.endAt(j));
        const depth = depths.flagsAt(j);
        if (depth > 1 && depth <= layers) {
          const isZero = readsAsZero(status.flagsAt(i));
          const isLeftOut = isZero && this.#zeroes.targetIsZero;
          if (!isLeftOut) runs.push({ offset: at, length: to - at, isZero });
        }
        at = to;
      }
    }
    return runs;
  }

  /** @returns bytes that were written; the others were zeroes. */
  async #copy({ offset, length }: Run, signal?: AbortSignal): Promise<number> {
    const options = signal === undefined ? {} : { signal };
    const end = offset + length;
    const bytes = Buffer.allocUnsafe(Math.min(PIECE, length));
    let movedBytes = 0;
    for (let at = offset; at < end; at += PIECE) {
      const piece = bytes.subarray(0, Math.min(PIECE, end - at));
      await onSide('source', this.#image.read(at, piece, options));
      if (this.#zeroes.detectZeroes !== 'off' && isZero(piece)) {
        await this.#zero({ offset: at, length: piece.length });
        continue;
      }
      // The disk shows the same afterwards. A write cannot be given up: the range is held until it has ended.
      await onSide('target', this.#image.write(at, piece, { unrecorded: true }));
      movedBytes += piece.length;
    }
    return movedBytes;
  }

  /** @returns that nothing was written. */
  async #zero({ offset, length }: Pick<Run, 'offset' | 'length'>): Promise<0> {
    const unmap = this.#zeroes.detectZeroes !== 'on';
    await onSide('target', this.#image.zero(offset, length, { unmap, unrecorded: true }));
    return 0;
  }

  async #hold<T>(start: number, end: number, alone: boolean, work: () => Promise<T>): Promise<T> {
    const from = alignDown(start, this.#unit);
    const hold = this.#locks.acquire(from, alignUp(end, this.#unit), alone);
    try {
      if (hold.ready !== undefined) await hold.ready;
      return await work();
    } finally {
      this.#locks.release(hold);
    }
  }
}
