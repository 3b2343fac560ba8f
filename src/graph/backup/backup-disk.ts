import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import {
  type CopyJob,
  type CopyOptions,
  copy,
  type Plan,
  type PlannedExtent,
  type PlanTotals,
  plan,
  type ReadExtentsOptions,
  readExtents,
} from '../../copy/index.js';
import { optionCheck } from '../../util/index.js';

/** How the extents of a disk are read. */
export type BackupReadOptions = Omit<ReadExtentsOptions, 'sourceFormat'>;

/** How a disk is copied; what is copied, and what of it, is the backup's to say. */
export type BackupCopyOptions = Omit<
  CopyOptions,
  'source' | 'sourceFormat' | 'context' | 'bitmap' | 'mode' | 'carryBitmaps' | 'resume'
>;

const checkReadOptions = optionCheck<BackupReadOptions>({
  requests: 'any',
  requestSize: 'any',
  signal: 'signal',
});

/** What a disk is made of. */
export interface BackupDiskParts {
  readonly name: string;
  /** The view. */
  readonly device: BlockDevice;
  /** A copy of what is dirty, which its caller frees; undefined for a full backup. */
  readonly dirty: (() => Bitmap) | undefined;
  /** Fires when the backup ends. */
  readonly signal: AbortSignal;
}

/** A node of a backup, as it was at the point in time. */
export class BackupDisk {
  /** The node. */
  readonly name: string;
  /** All of it, or what was dirty in the bitmap. */
  readonly mode: 'full' | 'incremental';
  /** The view: what it reads is of the point in time. Open until the backup ends. */
  readonly device: BlockDevice;
  readonly #dirty: (() => Bitmap) | undefined;
  #held: Bitmap | undefined;
  readonly #signal: AbortSignal;
  #plan: Promise<Plan> | undefined;
  #hasReleased = false;
  #loops = 0;
  readonly #copies: CopyJob[] = [];

  /** @internal */
  constructor({ name, device, dirty, signal }: BackupDiskParts) {
    this.name = name;
    this.mode = dirty === undefined ? 'full' : 'incremental';
    this.device = device;
    this.#dirty = dirty;
    this.#signal = signal;
  }

  /** Bytes. */
  get size(): number {
    return this.device.size;
  }

  /** @internal A loop over its extents, or a copy, has not ended. */
  get isRead(): boolean {
    const isCopied = this.#copies.some(({ state }) => state === 'running' || state === 'paused');
    return isCopied || this.#loops > 0;
  }

  /** How much of the disk must be moved, and how much of that is zero. */
  async totals(): Promise<PlanTotals> {
    return { ...(await this.#planned()).totals };
  }

  /** What an increment has to take, as a bitmap, which the caller frees; undefined for a full backup, which takes all. */
  changes(): Bitmap | undefined {
    return this.#dirty?.();
  }

  /**
   * What must be moved, in order of offset: data with its bytes, which are lent until the loop goes on, and zeroes of any
   * length. What is not in it is as it was before; of a full backup, everything is in it.
   *
   * @throws in the loop: LacunaError ERR_VIEW_LOST; what reading the nodes throws; ERR_ABORTED.
   */
  async *extents(options: BackupReadOptions = {}): AsyncGenerator<PlannedExtent, void, void> {
    checkReadOptions('BackupDisk.extents', options);
    this.#loops++;
    try {
      const planned = await this.#planned();
      yield* readExtents(this.device, planned, { ...options, signal: this.#with(options.signal) });
    } finally {
      this.#loops--;
    }
  }

  /**
   * Copies what must be moved into a device, as `copy` does. The target of an increment must hold what the disk was before,
   * or be a new image over it (`image.backing`).
   *
   * @throws TypeError after {@link release}. The job fails as `copy` does.
   */
  copyTo(target: CopyOptions['target'], options: Omit<BackupCopyOptions, 'target'> = {}): CopyJob {
    if (this.#hasReleased) {
      throw new TypeError(`parts of the view of ${this.name} were given back: copy it before`);
    }
    const job = copy({
      ...options,
      source: this.device,
      target,
      ...this.#scope,
      signal: this.#with(options.signal),
    });
    this.#copies.push(job);
    return job;
  }

  /** Says that a range will not be read again: it is neither kept nor copied any more. */
  async release(offset: number, length: number): Promise<void> {
    // The status of a range that was given back cannot be asked any more.
    await this.#planned();
    this.#hasReleased = true;
    await this.device.discard(offset, length);
  }

  /** @internal */
  async free(): Promise<void> {
    const planned = await this.#plan?.catch(() => undefined);
    planned?.data.free();
    planned?.zero.free();
    this.#held?.free();
  }

  #planned(): Promise<Plan> {
    const options = { source: this.device, ...this.#scope, signal: this.#signal };
    this.#plan ??= plan(options).catch((error) => {
      this.#plan = undefined;
      throw error;
    });
    return this.#plan;
  }

  get #scope(): { bitmap?: Bitmap } {
    if (this.#dirty === undefined) return {};
    this.#held ??= this.#dirty();
    return { bitmap: this.#held };
  }

  #with(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
  }
}
