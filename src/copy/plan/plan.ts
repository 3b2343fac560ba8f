import { Bitmap } from '../../bitmap/bits/index.js';
import { type BlockDevice, type ImageFormat, isBlockDevice } from '../../block/index.js';
import { alignDown, alignUp, closeAfter, optionCheck } from '../../util/index.js';
import { Arena } from '../../wasm/index.js';
import {
  type CheckedScope,
  checkScope,
  DEVICE,
  type DeviceSource,
  type PlanMode,
  type PlanScope,
  type PlanTotals,
} from '../options/index.js';
import { planGranularity } from './granularity.js';
import { openForPlan, type PlanWalk, walkPlan } from './plan-walk.js';

/** What must be done to make a target equal to a source. No granule is in both bitmaps. */
export interface Plan {
  /** Granules to read and write. */
  data: Bitmap;
  /** Granules that must read as zero afterwards. */
  zero: Bitmap;
  /** How much that is, before bitmaps round it to granules. */
  totals: PlanTotals;
  /** What a person should know although it succeeded. */
  warnings: string[];
  /** Frees both bitmaps, for `using`. */
  [Symbol.dispose](): void;
}

/** What a plan is made for. */
export interface PlanOptions extends PlanScope {
  /** What is going to be copied. A device that the caller has opened stays open. */
  source: DeviceSource;
  /** The format inside a path. Default: from the path's ending. */
  sourceFormat?: ImageFormat | undefined;
  /** Read the source although others may be writing it; see OpenOptions. */
  forceShare?: boolean | undefined;
  /** Bytes; a power of two. Default: the finest that keeps the plan small, see {@link planGranularity}. */
  granularity?: number | undefined;
  /** Where the bitmaps live. Default: the arena of this thread. */
  arena?: Arena | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

const checkPlanOptions = optionCheck<PlanOptions>({
  mode: 'any',
  context: 'any',
  bitmap: 'any',
  source: DEVICE,
  sourceFormat: 'any',
  forceShare: 'flag',
  granularity: 'any',
  arena: 'any',
  signal: 'signal',
});

/**
 * Finds out what has to move, without moving it. From allocation alone (a full copy) everything that does
 * not read as zero is `data`; with contexts or bitmaps (an incremental copy) only what is dirty counts, and
 * with the mode `top` only what the top layer of a chain of images holds.
 *
 * Of what counts, everything that reads as zero is in `zero`, never left out: the target may hold something
 * else there. Status that a source refuses, or that makes no sense, is taken for data, and warned of.
 *
 * @throws TypeError for a scope that contradicts itself. LacunaError ERR_BITMAP_MISMATCH where a bitmap is of
 *   another size; ERR_CONTEXT_UNKNOWN; ERR_ABORTED; what opening a source throws; ERR_NBD_DISCONNECTED where
 *   the connection is lost, because that is no answer.
 */
export async function plan(options: PlanOptions): Promise<Plan> {
  checkPlanOptions('plan', options);
  const scope = checkScope(options);
  const { source, sourceFormat, forceShare, signal } = options;
  if (isBlockDevice(source)) return await planDevice(source, scope, options);
  const device = await openForPlan(source, scope, { format: sourceFormat, forceShare, signal });
  return await closeAfter(
    () => planDevice(device, scope, options),
    () => device.close(),
  );
}

/** As {@link plan}, for an open device. */
export async function planDevice(
  source: BlockDevice,
  scope: CheckedScope,
  options: Pick<PlanOptions, 'granularity' | 'arena' | 'signal'> & Pick<PlanWalk, 'seesZeroes'>,
): Promise<Plan> {
  const { arena = Arena.default, seesZeroes, signal } = options;
  const { granularity = planGranularity(source.size) } = options;
  const draft = new Draft(source.size, granularity, arena, scope.mode);
  try {
    const visit = draft.add;
    const warnings = await walkPlan({ scope, source, arena, seesZeroes, signal, visit });
    return draft.finish([...source.warnings, ...warnings]);
  } catch (error) {
    draft.discard();
    throw error;
  }
}

/** A plan in the making. */
class Draft {
  readonly #data: Bitmap;
  readonly #zero: Bitmap;
  readonly #totals: PlanTotals;
  readonly #mode: PlanMode;
  /** What reads as zero and has not been added yet. */
  #zeroStart = 0;
  #zeroEnd = 0;

  constructor(size: number, granularity: number, arena: Arena, mode: PlanMode) {
    this.#mode = mode;
    this.#data = new Bitmap({ size, granularity, arena });
    this.#zero = new Bitmap({ size, granularity, arena });
    this.#totals = { size, cleanBytes: 0, dataBytes: 0, zeroBytes: 0, holeBytes: 0 };
  }

  readonly add = (offset: number, length: number, isZero: boolean, isHole: boolean): void => {
    if (!isZero) this.#totals.dataBytes += length;
    else if (isHole) this.#totals.holeBytes += length;
    else this.#totals.zeroBytes += length;
    if (!isZero) this.#data.set(offset, length);
    // Where everything counts, what is not data is zero.
    else if (this.#mode !== 'full') this.#addZero(offset, offset + length);
  };

  /** Neighbours that read as zero are one, or granules that they share would not be zeroed. */
  #addZero(offset: number, end: number): void {
    if (offset !== this.#zeroEnd) {
      this.#endZero();
      this.#zeroStart = offset;
    }
    this.#zeroEnd = end;
  }

  /** A granule that is zero only in part is moved as data: its other part may be clean, and not zero. */
  #endZero(): void {
    const { size, granularity } = this.#zero;
    const [offset, end] = [this.#zeroStart, this.#zeroEnd];
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

  finish(warnings: string[]): Plan {
    this.#endZero();
    if (this.#mode === 'full') this.#zero.setAll();
    this.#zero.subtract(this.#data);
    const { size, dataBytes, zeroBytes, holeBytes } = this.#totals;
    this.#totals.cleanBytes = size - dataBytes - zeroBytes - holeBytes;
    const discard = () => this.discard();
    const [data, zero, totals] = [this.#data, this.#zero, this.#totals];
    return { data, zero, totals, warnings, [Symbol.dispose]: discard };
  }

  discard(): void {
    this.#data.free();
    this.#zero.free();
  }
}
