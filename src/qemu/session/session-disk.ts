import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, openDevice } from '../../block/index.js';
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
import type { NbdServerAddress } from '../../nbd/index.js';
import { joinSignals, optionCheck } from '../../util/index.js';
import type { DiskInfo, PlannedDisk } from '../inspect/index.js';

/** How the extents of a disk are read. */
export type SessionReadOptions = Omit<ReadExtentsOptions, 'sourceFormat'>;

/** How a disk is copied; what is copied, and what of it, is the session's to say. */
export type SessionCopyOptions = Omit<
  CopyOptions,
  'source' | 'sourceFormat' | 'context' | 'bitmap' | 'mode' | 'carryBitmaps' | 'resume'
>;

const checkReadOptions = optionCheck<SessionReadOptions>({
  requests: 'any',
  requestSize: 'any',
  signal: 'signal',
});

/** For so long a read waits for a lost connection. */
const RECONNECT_SECONDS = 60;

/** What a disk needs of its session. */
export interface SessionLink {
  /** Fires when the view is lost or given up. */
  readonly signal: AbortSignal;
  /** Throws why the view is lost, if it is. */
  check(): void;
}

/** Where the view of a disk is read. */
export interface ViewExport {
  readonly server: NbdServerAddress;
  readonly name: string;
  /** The bitmap that says what an increment has to read. */
  readonly dirty?: string | undefined;
  /** Its scratch space can be given back. */
  readonly canRelease: boolean;
}

/** A disk of a backup, as it was at the point in time of the session. */
export class SessionDisk {
  /** The disk in the machine. */
  readonly disk: DiskInfo;
  /** All of it, or what has changed since the base. */
  readonly mode: 'full' | 'incremental';
  /** Why, in words. */
  readonly reason: string;
  /** The view: what it reads is of the point in time. Open until the session ends. */
  readonly device: BlockDevice;
  readonly #context: string | undefined;
  readonly #canRelease: boolean;
  readonly #session: SessionLink;
  #plan: Promise<Plan> | undefined;
  #hasReleased = false;
  #loops = 0;
  readonly #copies: CopyJob[] = [];
  /** Let go of the signals that copies were begun with. */
  readonly #releases: (() => void)[] = [];

  /** @internal */
  static async open(
    planned: PlannedDisk,
    { server, name, dirty, canRelease }: ViewExport,
    session: SessionLink,
  ): Promise<SessionDisk> {
    const context = dirty === undefined ? undefined : `qemu:dirty-bitmap:${dirty}`;
    const contexts = context === undefined ? [] : [context];
    // A connection may be made again: the view stays what it is. When it ends, the signal ends the waiting.
    const reconnect = { 'reconnect-delay': RECONNECT_SECONDS };
    const device = await openDevice(
      { driver: 'nbd', server, export: name, contexts, ...reconnect },
      { writable: canRelease, signal: session.signal },
    );
    return new SessionDisk(planned, { device, context, canRelease, session });
  }

  private constructor(
    { disk, mode, reason }: PlannedDisk,
    view: {
      device: BlockDevice;
      context: string | undefined;
      canRelease: boolean;
      session: SessionLink;
    },
  ) {
    this.disk = disk;
    this.mode = mode;
    this.reason = reason;
    this.device = view.device;
    this.#context = view.context;
    this.#canRelease = view.canRelease;
    this.#session = view.session;
  }

  /** What the disk is called. */
  get name(): string {
    return this.disk.name;
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
  async changes(): Promise<Bitmap | undefined> {
    if (this.mode === 'full') return undefined;
    const { data, zero } = await this.#planned();
    const changes = data.snapshot();
    changes.merge(zero);
    return changes;
  }

  /**
   * What must be moved, in order of offset: data with its bytes, which are lent until the loop goes on, and zeroes of any
   * length. What is not in it is as the base has it; of a full backup, everything is in it.
   *
   * Where QEMU can, what is not in it is given back at once, so that the guest overwrites it without a copy.
   *
   * @throws in the loop: LacunaError ERR_VIEW_LOST, ERR_SCRATCH_FULL; what reading an export throws; ERR_ABORTED.
   */
  async *extents(options: SessionReadOptions = {}): AsyncGenerator<PlannedExtent, void, void> {
    checkReadOptions('SessionDisk.extents', options);
    this.#session.check();
    const { signal, release } = joinSignals(this.#session.signal, options.signal);
    this.#loops++;
    try {
      const planned = await this.#planned();
      await this.#releaseClean();
      yield* readExtents(this.device, planned, { ...options, signal });
    } catch (error) {
      // What is behind a read that failed, or was ended, may be that the view is lost.
      this.#session.check();
      throw error;
    } finally {
      release();
      this.#loops--;
    }
  }

  /**
   * Copies what must be moved into a device, as `copy` does. The target of an increment must hold what the base holds, or
   * be a new image over it (`image.backing`).
   *
   * @throws TypeError after {@link extents} has given a part of the view back. The job fails as `copy` does, with
   *   ERR_ABORTED where the view is lost: its cause says why.
   */
  copyTo(target: CopyOptions['target'], options: Omit<SessionCopyOptions, 'target'> = {}): CopyJob {
    if (this.#hasReleased) {
      throw new TypeError(
        `parts of the view of ${this.name} were given back: copy it instead of reading its extents`,
      );
    }
    this.#session.check();
    const { signal, release } = joinSignals(this.#session.signal, options.signal);
    // That the copy has ended is the caller's to hear of; the session ends soon after.
    this.#releases.push(release);
    const context = this.#context;
    const job = copy({
      ...options,
      source: this.device,
      target,
      ...(context !== undefined && { context }),
      signal,
    });
    this.#copies.push(job);
    return job;
  }

  /**
   * Says that a range was made durable and will not be read again, so that QEMU can free its scratch space, and the guest
   * overwrites it without a copy. Does nothing where this QEMU cannot.
   *
   * @returns whether the space was given back.
   */
  async release(offset: number, length: number): Promise<boolean> {
    if (!this.#canRelease) return false;
    // Status of a range that was given back cannot be asked any more.
    await this.#planned();
    this.#hasReleased = true;
    await this.device.discard(offset, length, { signal: this.#session.signal });
    return true;
  }

  /** @internal */
  async close(): Promise<void> {
    for (const release of this.#releases) release();
    await this.device.close();
    const planned = await this.#plan?.catch(() => undefined);
    planned?.data.free();
    planned?.zero.free();
  }

  #planned(): Promise<Plan> {
    this.#plan ??= this.#makePlan();
    return this.#plan;
  }

  async #makePlan(): Promise<Plan> {
    const { signal } = this.#session;
    try {
      return await plan({ source: this.device, context: this.#context, signal });
    } catch (error) {
      this.#plan = undefined;
      this.#session.check();
      throw error;
    }
  }

  async #releaseClean(): Promise<void> {
    if (!this.#canRelease || this.#hasReleased) return;
    const changes = await this.changes();
    if (changes === undefined) return;
    try {
      for (const { offset, length } of cleanRuns(changes)) await this.release(offset, length);
    } finally {
      changes.free();
    }
  }
}

function* cleanRuns(bitmap: Bitmap): Generator<{ offset: number; length: number }> {
  let at = 0;
  for (const { offset, length } of bitmap.ranges()) {
    if (offset > at) yield { offset: at, length: offset - at };
    at = offset + length;
  }
  if (at < bitmap.size) yield { offset: at, length: bitmap.size - at };
}
