import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, openDevice } from '../../block/index.js';
import type { CopyJob, CopyOptions, PlannedExtent, PlanTotals } from '../../copy/index.js';
import { type ViewCopyOptions, ViewReader, type ViewReadOptions } from '../../copy/view/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { DiskInfo, PlannedDisk } from '../inspect/index.js';

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
  readonly #reader: ViewReader;
  readonly #canRelease: boolean;
  /** It is a connection to QEMU. */
  readonly #isServed: boolean;
  #isClosed = false;

  /** @internal */
  static async open(
    planned: PlannedDisk,
    { server, name, dirty, canRelease }: ViewExport,
    session: SessionLink,
  ): Promise<SessionDisk> {
    const context = dirty === undefined ? undefined : `qemu:dirty-bitmap:${dirty}`;
    const device = await openView({ server, name, dirty, canRelease }, session.signal);
    return new SessionDisk(planned, { device, context, canRelease, session, isServed: true });
  }

  /**
   * @internal A disk that QEMU pushes.
   * @param context of the device: what an increment has to read; what it has not, is read from QEMU.
   */
  static landing(
    planned: PlannedDisk,
    device: BlockDevice,
    context: string | undefined,
    session: SessionLink,
  ): SessionDisk {
    const view = { device, context, session };
    const isServed = context !== undefined;
    return new SessionDisk(planned, { ...view, canRelease: false, isServed });
  }

  private constructor(
    { disk, mode, reason }: PlannedDisk,
    view: {
      device: BlockDevice;
      context: string | undefined;
      canRelease: boolean;
      session: SessionLink;
      isServed: boolean;
    },
  ) {
    this.disk = disk;
    this.mode = mode;
    this.reason = reason;
    this.device = view.device;
    const { device, context, session } = view;
    this.#reader = new ViewReader({
      name: disk.name,
      device,
      scope: () => ({ context }),
      signal: session.signal,
      check: () => session.check(),
    });
    this.#canRelease = view.canRelease;
    this.#isServed = view.isServed;
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
    return this.#reader.isRead;
  }

  /** How much of the disk must be moved, and how much of that is zero. */
  totals(): Promise<PlanTotals> {
    return this.#reader.totals();
  }

  /** What an increment has to take, as a bitmap, which the caller frees; undefined for a full backup, which takes all. */
  async changes(): Promise<Bitmap | undefined> {
    if (this.mode === 'full') return undefined;
    const { data, zero } = await this.#reader.plan();
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
  extents(options: ViewReadOptions = {}): AsyncGenerator<PlannedExtent, void, void> {
    return this.#reader.extents('SessionDisk.extents', options, () => this.#releaseClean());
  }

  /**
   * Copies what must be moved into a device, as `copy` does. The target of an increment must hold what the base holds, or
   * be a new image over it (`image.backing`).
   *
   * @throws TypeError after {@link extents} has given a part of the view back. The job fails as `copy` does, with
   *   ERR_ABORTED where the view is lost: its cause says why.
   */
  copyTo(target: CopyOptions['target'], options: ViewCopyOptions = {}): CopyJob {
    return this.#reader.copyTo(target, options);
  }

  /**
   * Says that a range was made durable and will not be read again, so that QEMU can free its scratch space, and the guest
   * overwrites it without a copy. Does nothing where this QEMU cannot.
   *
   * @returns whether the space was given back.
   */
  async release(offset: number, length: number): Promise<boolean> {
    if (!this.#canRelease) return false;
    await this.#reader.release(offset, length);
    return true;
  }

  /** @internal Ends what is connected to QEMU; what has landed can still be read. */
  async disconnect(): Promise<void> {
    if (this.#isServed) await this.close();
  }

  /** @internal Closing again is harmless. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.device.close();
    await this.#reader.free();
  }

  async #releaseClean(): Promise<void> {
    if (!this.#canRelease || this.#reader.hasReleased) return;
    const changes = await this.changes();
    if (changes === undefined) return;
    try {
      for (const { offset, length } of cleanRuns(changes)) await this.release(offset, length);
    } finally {
      changes.free();
    }
  }
}

/** A connection may be made again: the view stays what it is. When it ends, the signal ends the waiting. */
export function openView(
  { server, name, dirty, canRelease }: ViewExport,
  signal: AbortSignal,
): Promise<BlockDevice> {
  const contexts = dirty === undefined ? [] : [`qemu:dirty-bitmap:${dirty}`];
  const reconnect = { 'reconnect-delay': RECONNECT_SECONDS };
  return openDevice(
    { driver: 'nbd', server, export: name, contexts, ...reconnect },
    { writable: canRelease, signal },
  );
}

function* cleanRuns(bitmap: Bitmap): Generator<{ offset: number; length: number }> {
  let at = 0;
  for (const { offset, length } of bitmap.ranges()) {
    if (offset > at) yield { offset: at, length: offset - at };
    at = offset + length;
  }
  if (at < bitmap.size) yield { offset: at, length: bitmap.size - at };
}
