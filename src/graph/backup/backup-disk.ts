import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import type { CopyJob, CopyOptions, PlannedExtent, PlanTotals } from '../../copy/index.js';
import { type ViewCopyOptions, ViewReader, type ViewReadOptions } from '../../copy/view/index.js';

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
  readonly #reader: ViewReader;
  #held: Bitmap | undefined;

  /** @internal */
  constructor({ name, device, dirty, signal }: BackupDiskParts) {
    this.name = name;
    this.mode = dirty === undefined ? 'full' : 'incremental';
    this.device = device;
    this.#dirty = dirty;
    this.#reader = new ViewReader({ name, device, scope: () => this.#scope, signal });
  }

  /** Bytes. */
  get size(): number {
    return this.device.size;
  }

  /** @internal A loop over its extents, or a copy, has not ended. */
  get isRead(): boolean {
    return this.#reader.isRead;
  }

  /** How much of the disk must be moved, and how much of that is zero. */
  totals(): Promise<PlanTotals> {
    return this.#reader.totals();
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
  extents(options: ViewReadOptions = {}): AsyncGenerator<PlannedExtent, void, void> {
    return this.#reader.extents('BackupDisk.extents', options);
  }

  /**
   * Copies what must be moved into a device, as `copy` does. The target of an increment must hold what the disk was before,
   * or be a new image over it (`image.backing`).
   *
   * @throws TypeError after {@link release}. The job fails as `copy` does.
   */
  copyTo(target: CopyOptions['target'], options: ViewCopyOptions = {}): CopyJob {
    return this.#reader.copyTo(target, options);
  }

  /** Says that a range will not be read again: it is neither kept nor copied any more. */
  release(offset: number, length: number): Promise<void> {
    return this.#reader.release(offset, length);
  }

  /** @internal */
  async free(): Promise<void> {
    await this.#reader.free();
    this.#held?.free();
  }

  get #scope(): { bitmap?: Bitmap } {
    if (this.#dirty === undefined) return {};
    this.#held ??= this.#dirty();
    return { bitmap: this.#held };
  }
}
