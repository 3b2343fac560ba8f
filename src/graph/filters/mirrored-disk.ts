import { Bitmap } from '../../bitmap/index.js';
import {
  type CopyMode,
  type DiskCopy,
  type Range,
  RangeLock,
  type ReadableRange,
  type TakenBytes,
  type ZeroedRange,
} from '../../block/index.js';
import type { DetectZeroes } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import type { DiskAndTarget } from './disk-and-target.js';
import { isZero } from './is-zero.js';
import { onSide, type SideError } from './side-error.js';
import { outcomeOf, within } from './within.js';

/** How a disk is mirrored. */
export interface MirrorSettings {
  readonly mode: CopyMode;
  /** Bytes of a bit: what is written in part is copied as a whole. */
  readonly granularity: number;
  /** The target reads as zero, until it is written. */
  readonly targetIsZero: boolean;
  readonly detectZeroes: DetectZeroes;
  /** For so long a write of a guest waits for the target. */
  readonly limitMs: number;
}

/** A write, zero or discard of a guest. */
export interface Change extends Range {
  readonly onDisk: () => Promise<void>;
  /** Makes it on the target too; absent where that does not get it. */
  readonly onTarget?: () => Promise<void>;
  /** The disk may refuse it: the target gets it afterwards. */
  readonly mayBeRefused?: boolean;
}

type Hold = ReturnType<RangeLock['acquire']>;

const NONE: TakenBytes = { movedBytes: 0, zeroedBytes: 0 };
/** What cannot be read is looked for in units of this. */
const READ_UNIT = 4096;

/**
 * A disk whose changes end in one of two ways: disk and target have both made it while it held its range alone, or it is dirty in the
 * bitmap that is current when it has ended.
 *
 * Changes that are made on both sides, and pieces of a job from the read to the end of the write, hold their range alone. Changes that
 * are made on the disk only need no hold, since they end dirty.
 */
export class MirroredDisk implements DiskCopy {
  mode: CopyMode;
  isRecorded = true;
  isStopped = () => false;
  onNews = () => {};
  readonly #devices: DiskAndTarget;
  readonly #settings: MirrorSettings;
  readonly #locks = new RangeLock();
  /** What may differ, beside what the job has taken. */
  #dirty: Bitmap;
  /** Written on both sides since the dirty bits were taken: what was known to read as zero may not any more. */
  readonly #touched: Bitmap;
  /** Written on the target, and not known to be durable there. */
  #unconfirmed: Bitmap;
  #isTargetZero: boolean;
  /** Writes to the target whose guests do not wait for them any more. */
  #late = 0;
  /** How often the target has forgotten something: what had begun before that, and ends behind it, may be forgotten too. */
  #losses = 0;
  #isFailing = false;
  #failure: Error | undefined;
  #broken: LacunaError | undefined;
  #hasBegun = false;

  constructor(devices: DiskAndTarget, settings: MirrorSettings) {
    this.#devices = devices;
    this.#settings = settings;
    this.mode = settings.mode;
    this.#isTargetZero = settings.targetIsZero;
    this.#dirty = this.#clean();
    this.#touched = this.#clean();
    this.#unconfirmed = this.#clean();
  }

  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  get broken(): LacunaError | undefined {
    return this.#broken;
  }

  get granularity(): number {
    return this.#settings.granularity;
  }

  get dirtyBytes(): number {
    return this.#dirty.dirtyBytes;
  }

  /** Somebody uses it. Returns what takes that back. */
  begin(): () => void {
    if (this.#hasBegun) return () => {};
    this.#hasBegun = true;
    return () => {
      this.#hasBegun = false;
    };
  }

  /** Makes a change of a guest, who never gets an error of the target, and waits for that no longer than the limit. */
  async change(change: Change): Promise<void> {
    // Read once: a switch of the mode concerns those that begin later.
    const isActive = this.mode === 'write-blocking' && change.onTarget !== undefined;
    const hold = isActive && this.#mayReachTarget ? await this.#take(change) : undefined;
    if (hold !== undefined) return this.#changeBoth(change, change.onTarget!, hold);
    try {
      await change.onDisk();
    } finally {
      // Not before: the job could take the bit, and read what was there until now.
      this.setDirty(change.offset, change.length);
    }
  }

  takeFailure(): Error | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  recover(): void {
    this.#isFailing = false;
  }

  takeDirty(): Bitmap {
    const taken = this.#dirty;
    this.#dirty = this.#clean();
    this.#touched.resetAll();
    this.#isTargetZero = false;
    return taken;
  }

  copyDirty(): Bitmap {
    return this.#dirty.snapshot();
  }

  setDirty(offset: number, length: number): void {
    this.#note(() => this.#dirty.set(offset, length));
    this.onNews();
  }

  addDirty(bits: Bitmap): void {
    this.#note(() => this.#dirty.merge(bits));
    this.onNews();
  }

  /** The disk, or the target, is another one. */
  setAllDirty(): void {
    this.#note(() => this.#dirty.setAll());
    this.#isTargetZero = false;
    this.onNews();
  }

  copy(offset: number, length: number): Promise<TakenBytes> {
    return this.#hold(offset, length, async () => {
      const bytes = Buffer.allocUnsafe(length);
      await onSide('source', this.#devices.disk.read(offset, bytes));
      return this.#put(offset, bytes);
    });
  }

  zero(offset: number, length: number): Promise<ZeroedRange> {
    return this.#hold(offset, length, async () => {
      const left: Range[] = [];
      let zeroedBytes = 0;
      const end = offset + length;
      for (let at = offset; at < end; ) {
        // Looked at under the hold: a write that is under way now waits for it.
        const run = this.#touched.status(at, end - at);
        if (run.dirty) left.push({ offset: at, length: run.length });
        else zeroedBytes += (await this.#putZeroes(at, run.length, true)).zeroedBytes;
        at += run.length;
      }
      return { movedBytes: 0, zeroedBytes, left };
    });
  }

  copyReadable(offset: number, length: number): Promise<ReadableRange> {
    return this.#hold(offset, length, async () => {
      const unread: Range[] = [];
      let [movedBytes, zeroedBytes] = [0, 0];
      for (let at = offset; at < offset + length; at += READ_UNIT) {
        const bytes = Buffer.allocUnsafe(Math.min(READ_UNIT, offset + length - at));
        const failure = await outcomeOf(this.#devices.disk.read(at, bytes));
        const put = failure
          ? await this.#putZeroes(at, bytes.length, true)
          : await this.#put(at, bytes);
        movedBytes += put.movedBytes;
        zeroedBytes += put.zeroedBytes;
        if (failure) unread.push({ offset: at, length: bytes.length });
      }
      for (const each of unread) this.setDirty(each.offset, each.length);
      return { movedBytes, zeroedBytes, unread };
    });
  }

  async flush(): Promise<void> {
    const losses = this.#losses;
    const flushed = this.#unconfirmed;
    // What ends from now on may be behind the flush.
    this.#unconfirmed = this.#clean();
    try {
      await onSide('target', this.#devices.target.flush());
      if (losses !== this.#losses) this.#note(() => this.#dirty.merge(flushed));
    } catch (error) {
      this.#note(() => this.#dirty.merge(flushed));
      this.#targetFailed((error as SideError).cause);
      throw error;
    } finally {
      flushed.free();
    }
  }

  /** Resolves when nobody copies any more, and nothing goes on that a guest has stopped waiting for. */
  get idle(): Promise<unknown> {
    return this.#locks.idle;
  }

  async close(): Promise<void> {
    await this.idle;
    for (const bits of [this.#dirty, this.#touched, this.#unconfirmed]) bits.free();
  }

  get #mayReachTarget(): boolean {
    return !this.#isFailing && this.#late === 0 && !this.isStopped() && this.#broken === undefined;
  }

  /** Holds the range of a guest's change; undefined where that takes too long, or the target may not be reached by then. */
  async #take({ offset, length }: Range): Promise<Hold | undefined> {
    const hold = this.#locks.acquire(offset, offset + length, true);
    const { limitMs } = this.#settings;
    const isIn = hold.ready === undefined || (await within(limitMs, hold.ready));
    if (isIn && this.#mayReachTarget) return hold;
    this.#locks.release(hold);
    return undefined;
  }

  async #changeBoth(change: Change, onTarget: () => Promise<void>, hold: Hold): Promise<void> {
    const losses = this.#losses;
    let target: Promise<Error | undefined> | undefined;
    let isGood = false;
    try {
      if (change.mayBeRefused) await change.onDisk();
      target = outcomeOf(onTarget());
      if (!change.mayBeRefused) await change.onDisk();
      isGood = true;
    } finally {
      if (target === undefined) this.#end(change, hold, { isGood: false });
      else await this.#await(change, hold, target, () => isGood && losses === this.#losses);
    }
  }

  /** Waits for the target, but not too long: what comes later ends dirty, and keeps its range until it has really ended. */
  async #await(
    range: Range,
    hold: Hold,
    target: Promise<Error | undefined>,
    isGood: () => boolean,
  ): Promise<void> {
    if (await within(this.#settings.limitMs, target)) {
      const failure = await target;
      this.#end(range, hold, { isGood: isGood() && failure === undefined, failure });
      return;
    }
    this.#late++;
    void target.then((failure) => {
      this.#late--;
      this.#end(range, hold, { isGood: false, failure });
    });
  }

  /** Ends a change that was made on both sides, before its range is let go. */
  #end(
    { offset, length }: Range,
    hold: Hold,
    { isGood, failure }: { isGood: boolean; failure?: Error | undefined },
  ): void {
    this.#note(() => this.#touched.set(offset, length));
    this.#note(() => this.#unconfirmed.set(offset, length));
    if (!isGood) this.setDirty(offset, length);
    if (failure !== undefined) {
      this.#failure ??= failure;
      this.#targetFailed(failure);
    }
    this.#locks.release(hold);
  }

  async #put(offset: number, bytes: Buffer): Promise<TakenBytes> {
    const { detectZeroes } = this.#settings;
    if (detectZeroes !== 'off' && isZero(bytes)) {
      return this.#putZeroes(offset, bytes.length, detectZeroes === 'unmap');
    }
    await this.#write(offset, bytes.length, () =>
      this.#devices.target.write(offset, bytes, { unrecorded: !this.isRecorded }),
    );
    return { movedBytes: bytes.length, zeroedBytes: 0 };
  }

  async #putZeroes(offset: number, length: number, unmap: boolean): Promise<TakenBytes> {
    if (this.#isKnownZero(offset, length)) return NONE;
    const { target } = this.#devices;
    await this.#write(offset, length, () =>
      target.zero(offset, length, { unmap, unrecorded: !this.isRecorded }),
    );
    return { movedBytes: 0, zeroedBytes: length };
  }

  /** In the first round the target still has the zeroes that it had, where no guest has written. */
  #isKnownZero(offset: number, length: number): boolean {
    return this.#isTargetZero && this.#touched.nextDirty(offset, offset + length) < 0;
  }

  /** Whatever was sent to the target may be there, and may be lost until a flush. */
  async #write(offset: number, length: number, write: () => Promise<void>): Promise<void> {
    const losses = this.#losses;
    try {
      await onSide('target', write());
    } catch (error) {
      this.#targetFailed((error as SideError).cause);
      throw error;
    } finally {
      this.#note(() => this.#unconfirmed.set(offset, length));
      if (losses !== this.#losses) this.setDirty(offset, length);
    }
  }

  #targetFailed(failure: Error): void {
    this.#isFailing = true;
    if (isLost(failure)) {
      this.#losses++;
      // Dirty, never zero: what reads as zero may have been written meanwhile.
      this.#note(() => this.#dirty.merge(this.#unconfirmed));
      this.#unconfirmed.resetAll();
      this.#devices.target.writesAgain?.();
    }
    this.onNews();
  }

  async #hold<T>(offset: number, length: number, work: () => Promise<T>): Promise<T> {
    const hold = this.#locks.acquire(offset, offset + length, true);
    try {
      if (hold.ready !== undefined) await hold.ready;
      return await work();
    } finally {
      this.#locks.release(hold);
    }
  }

  /** Where there is no memory for what must be noted, the guest goes on, and the mirror has failed. */
  #note(note: () => void): void {
    try {
      note();
    } catch (error) {
      const { name } = this.#devices.disk;
      const message = `it is not known any more what of ${name} has changed, because there is no memory to note it: ${(error as Error).message}`;
      this.#broken ??= new LacunaError('ERR_ARENA_FULL', message, { cause: error });
      this.onNews();
    }
  }

  #clean(): Bitmap {
    return new Bitmap({
      size: this.#devices.disk.size,
      granularity: this.#settings.granularity,
    });
  }
}

/** By these a target says that it may have forgotten what it had not made durable. */
const LOST = new Set(['ERR_NBD_DISCONNECTED', 'ERR_NBD_UNFLUSHED', 'ERR_NBD_PROTOCOL']);

function isLost(failure: Error): boolean {
  return failure instanceof LacunaError && LOST.has(failure.code);
}
