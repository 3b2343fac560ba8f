import type { BlockDevice } from '../../block/index.js';
import { joinSignals, optionCheck } from '../../util/index.js';
import { type CopyJob, copy } from '../job/index.js';
import type { CopyOptions, PlanScope, PlanTotals } from '../options/index.js';
import { type Plan, plan } from '../plan/index.js';
import { type PlannedExtent, type ReadExtentsOptions, readExtents } from './read-extents.js';

/** How the extents of a disk of a backup are read. */
export type ViewReadOptions = Omit<ReadExtentsOptions, 'sourceFormat'>;

/** How a disk of a backup is copied; what is copied, and what of it, is the backup's to say. */
export type ViewCopyOptions = Omit<
  CopyOptions,
  'source' | 'sourceFormat' | 'target' | 'context' | 'bitmap' | 'mode' | 'carryBitmaps' | 'resume'
>;

const checkReadOptions = optionCheck<ViewReadOptions>({
  requests: 'any',
  requestSize: 'any',
  signal: 'signal',
});

/** A view, and what of it a backup takes. */
export interface ViewParts {
  /** What the disk is called. */
  readonly name: string;
  /** The view. It stays its owner's. */
  readonly device: BlockDevice;
  /** What is taken; asked for when it is first needed. */
  readonly scope: () => PlanScope;
  /** Fires when the view is lost or given up. */
  readonly signal: AbortSignal;
  /** Throws why the view is lost, if it is. Default: reads of the view say so themselves. */
  readonly check?: () => void;
}

/** Reads a disk as it was at one point in time, for a live backup: planned once, handed out or copied, and given back. */
export class ViewReader {
  readonly #parts: ViewParts;
  readonly #check: () => void;
  #plan: Promise<Plan> | undefined;
  #hasReleased = false;
  #loops = 0;
  readonly #copies: CopyJob[] = [];
  /** Let go of the signals that copies were begun with. */
  readonly #releases: (() => void)[] = [];

  constructor(parts: ViewParts) {
    this.#parts = parts;
    this.#check = parts.check ?? (() => {});
  }

  /** A loop over its extents, or a copy, has not ended. */
  get isRead(): boolean {
    const isCopied = this.#copies.some(({ state }) => state === 'running' || state === 'paused');
    return isCopied || this.#loops > 0;
  }

  /** Whether a range was given back. */
  get hasReleased(): boolean {
    return this.#hasReleased;
  }

  /** What must be moved: the same plan each time. */
  plan(): Promise<Plan> {
    this.#plan ??= this.#makePlan();
    return this.#plan;
  }

  async totals(): Promise<PlanTotals> {
    return { ...(await this.plan()).totals };
  }

  /**
   * What must be moved, in order of offset.
   *
   * @param owner who is asked, for errors.
   * @param planned awaited between the plan and the first read.
   */
  async *extents(
    owner: string,
    options: ViewReadOptions,
    planned?: () => Promise<void>,
  ): AsyncGenerator<PlannedExtent, void, void> {
    checkReadOptions(owner, options);
    this.#check();
    const { signal, release } = joinSignals(this.#parts.signal, options.signal);
    this.#loops++;
    try {
      const made = await this.plan();
      await planned?.();
      yield* readExtents(this.#parts.device, made, { ...options, signal });
    } catch (error) {
      // What is behind a read that failed, or was ended, may be that the view is lost.
      this.#check();
      throw error;
    } finally {
      release();
      this.#loops--;
    }
  }

  /** Copies what must be moved. @throws TypeError after {@link release} */
  copyTo(target: CopyOptions['target'], options: ViewCopyOptions): CopyJob {
    const { name, device, scope } = this.#parts;
    if (this.#hasReleased) {
      throw new TypeError(
        `parts of the view of ${name} were given back, by release or by reading extents: copy the disk before that`,
      );
    }
    this.#check();
    const { signal, release } = joinSignals(this.#parts.signal, options.signal);
    // That the copy has ended is the caller's to hear of; the backup ends soon after.
    this.#releases.push(release);
    const job = copy({ ...options, source: device, target, ...scope(), signal });
    this.#copies.push(job);
    return job;
  }

  /** Says that a range will not be read again. */
  async release(offset: number, length: number): Promise<void> {
    // The status of a range that was given back cannot be asked any more.
    await this.plan();
    this.#hasReleased = true;
    const { device, signal } = this.#parts;
    await device.discard(offset, length, { signal });
  }

  /** Gives back what reading has taken. Nobody reads any more. */
  async free(): Promise<void> {
    for (const release of this.#releases) release();
    const made = await this.#plan?.catch(() => undefined);
    made?.data.free();
    made?.zero.free();
  }

  async #makePlan(): Promise<Plan> {
    const { device, scope, signal } = this.#parts;
    try {
      return await plan({ source: device, ...scope(), signal });
    } catch (error) {
      this.#plan = undefined;
      this.#check();
      throw error;
    }
  }
}
