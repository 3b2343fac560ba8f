import { Bitmap } from '../../bitmap/index.js';
import {
  type BlockDevice,
  RangeLock,
  type SnapshotSource,
  type TakenBytes,
} from '../../block/index.js';
import type { DetectZeroes } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import { Context, ExtentList, isDirtyContext, Status } from '../../extent/index.js';
import { alignDown, alignUp } from '../../util/index.js';
import type { DiskAndTarget } from './disk-and-target.js';
import { isZero } from './is-zero.js';
import { onSide } from './side-error.js';
import { StatusOfMoment } from './status-of-moment.js';

/** Copied at once: whole granules, which are marked when all of them is copied. */
const PIECE = 2 * 1024 * 1024;

/** What becomes of a granule: it is on the disk as it was, it was copied to the target, or nobody wants it any more. */
type Kept = 'here' | 'copied' | 'given back';

/** How what is zero gets to the target. */
export interface ZeroSettings {
  /** Bytes that are nothing but zeroes are zeroed there, with `unmap` as a hole. */
  readonly detectZeroes: DetectZeroes;
  /** It reads as zero already, where nothing was copied to. */
  readonly targetIsZero: boolean;
}

interface Run {
  readonly offset: number;
  readonly length: number;
  readonly kept: Kept;
}

/**
 * The content that a disk had at a moment: what was not written since is read from the disk itself, the rest from copies that
 * were made before it was written.
 *
 * Copying and giving back hold a range alone, reading holds it together with other readers. The state of a granule is looked at
 * and changed only while its range is held. It goes from `here` to one of the other two, and never back: so a writer that finds
 * nothing `here` needs no hold.
 */
export class KeptCopies implements SnapshotSource {
  readonly size: number;
  readonly granularity: number;
  readonly #devices: DiskAndTarget;
  readonly #zeroes: ZeroSettings;
  readonly #here: Bitmap;
  readonly #copied: Bitmap;
  readonly #status: StatusOfMoment;
  readonly #locks = new RangeLock();
  #broken: LacunaError | undefined;
  #hasBegun = false;

  constructor(devices: DiskAndTarget, granularity: number, zeroes: ZeroSettings) {
    const { size } = devices.disk;
    this.size = size;
    this.granularity = granularity;
    this.#devices = devices;
    this.#zeroes = zeroes;
    this.#status = new StatusOfMoment(devices.disk);
    this.#here = new Bitmap({ size, granularity });
    this.#copied = new Bitmap({ size, granularity });
  }

  get broken(): LacunaError | undefined {
    return this.#broken;
  }

  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  get contexts(): readonly string[] {
    return this.#status.contexts;
  }

  /**
   * The moment is now.
   *
   * @param wanted what is going to be read; all of it by default.
   * @param shown what metadata contexts show of bitmaps; this frees it.
   */
  begin(wanted?: Bitmap, shown?: ReadonlyMap<string, Bitmap>): void {
    this.#status.begin(shown);
    try {
      if (wanted === undefined) this.#here.setAll();
      else this.#here.merge(wanted);
    } catch (error) {
      this.#status.undoBegin();
      throw error;
    }
    this.#hasBegun = true;
  }

  /** Takes back {@link begin}, before anything was kept. */
  undoBegin(): void {
    this.#here.resetAll();
    this.#status.undoBegin();
    this.#hasBegun = false;
  }

  /** The content is lost: nobody waits for copies any more, and every read fails. */
  break(cause: Error): void {
    const message = `the old content of ${this.#devices.disk.name} is lost, because it could not be kept: ${cause.message}`;
    this.#broken ??= new LacunaError('ERR_VIEW_LOST', message, { cause });
  }

  /** Whether a range holds something that must be copied before it is written. */
  isHere(offset: number, length: number): boolean {
    if (this.#broken !== undefined) return false;
    const { start, end } = this.#granules(offset, length);
    return this.#here.countIn(start, end - start) > 0;
  }

  /** Copies what of a range is on the disk alone; a range that is known to read as zero is zeroed in the target. */
  async take(offset: number, length: number, isZero: boolean): Promise<TakenBytes> {
    const taken = { movedBytes: 0, zeroedBytes: 0 };
    const { start, end } = this.#granules(offset, length);
    const zero = isZero ? this.#wholeGranules(offset, length) : { start, end: start };
    await this.#hold(start, end, true, async () => {
      for (const run of this.#runs(start, end)) {
        if (this.#broken !== undefined) return;
        if (run.kept !== 'here') continue;
        const stop = run.offset + run.length;
        await onSide('source', this.#status.noteDepth(run.offset, stop));
        const from = Math.min(stop, Math.max(run.offset, zero.start));
        const to = Math.max(from, Math.min(stop, zero.end));
        let movedBytes = await this.#copyRange(run.offset, from);
        await this.#zeroRange(from, to, true);
        movedBytes += await this.#copyRange(to, stop);
        taken.movedBytes += movedBytes;
        if (!this.#zeroes.targetIsZero) taken.zeroedBytes += run.length - movedBytes;
      }
    });
    return taken;
  }

  remaining(): Bitmap {
    return this.#here.snapshot();
  }

  async giveUp(offset: number, length: number): Promise<void> {
    const { start, end } = this.#wholeGranules(offset, length);
    if (start >= end) return;
    await this.#hold(start, end, true, async () => this.#here.reset(start, end - start));
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const end = offset + target.byteLength;
    const options = signal === undefined ? {} : { signal };
    await this.#hold(offset, end, false, async () => {
      for (const run of this.#runs(offset, end)) {
        const at = run.offset - offset;
        const part = target.subarray(at, at + run.length);
        await this.#deviceOf(run).read(run.offset, part, options);
        if (run.kept === 'copied') this.#checkTarget();
      }
      if (this.#broken !== undefined) throw this.#broken;
    });
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const lists: ExtentList[] = [];
    await this.#hold(offset, offset + length, false, async () => {
      for (const context of contexts) {
        if (this.#broken !== undefined) throw this.#broken;
        lists.push(await this.#extentsOf(context, offset, offset + length, signal));
      }
    });
    return lists;
  }

  async #extentsOf(
    context: string,
    offset: number,
    end: number,
    signal?: AbortSignal,
  ): Promise<ExtentList> {
    const isDepth = context === Context.depth;
    if (isDirtyContext(context)) return this.#status.dirty(context, offset, end);
    const list = new ExtentList(offset);
    const options = { contexts: [context], ...(signal && { signal }) };
    for (const run of this.#runs(offset, end)) {
      const stop = run.offset + run.length;
      if (run.kept !== 'here') {
        if (isDepth) this.#status.pushDepth(list, run.offset, stop);
        else list.push(run.length, Status.data);
        continue;
      }
      const [known] = await this.#devices.disk.someExtents(run.offset, run.length, options);
      // Writers have gone on meanwhile: this is the disk of another moment.
      if (this.#broken !== undefined) throw this.#broken;
      for (let i = 0; i < known.count && list.end < stop; i++) {
        list.push(Math.min(known.endAt(i), stop) - list.end, known.flagsAt(i));
      }
      if (list.end < stop) break;
    }
    return list;
  }

  async giveBack(offset: number, length: number): Promise<void> {
    const { start, end } = this.#wholeGranules(offset, length);
    if (start >= end) return;
    await this.#hold(start, end, true, async () => {
      const copied = [...this.#runs(start, end)].filter(({ kept }) => kept === 'copied');
      // Marked first: the space of the copies may be somebody else's afterwards.
      this.#here.reset(start, end - start);
      this.#copied.reset(start, end - start);
      const { target } = this.#devices;
      if (!target.capabilities.discard) return;
      for (const run of copied) await target.discard(run.offset, run.length);
    });
  }

  /** Resolves when nobody copies, reads or gives back. */
  get idle(): Promise<unknown> {
    return this.#locks.idle;
  }

  /** Waits for copies that somebody has given up: they are not over yet. */
  async close(): Promise<void> {
    await this.idle;
    this.#here.free();
    this.#copied.free();
    this.#status.free();
  }

  /** @returns bytes that were written; the others were zeroes. */
  async #copyRange(offset: number, end: number): Promise<number> {
    const { disk, target } = this.#devices;
    const { detectZeroes } = this.#zeroes;
    const bytes = Buffer.allocUnsafe(Math.min(PIECE, end - offset));
    let movedBytes = 0;
    for (let at = offset; at < end; at += PIECE) {
      const piece = bytes.subarray(0, Math.min(PIECE, end - at));
      await onSide('source', disk.read(at, piece));
      if (detectZeroes !== 'off' && isZero(piece)) {
        await this.#zeroRange(at, at + piece.length, detectZeroes === 'unmap');
        continue;
      }
      await onSide('target', target.write(at, piece));
      movedBytes += piece.length;
      this.#mark(at, at + piece.length);
    }
    return movedBytes;
  }

  /** A granule is copied once, so a target that was zero still is where nothing was copied to. */
  async #zeroRange(offset: number, end: number, unmap: boolean): Promise<void> {
    if (offset === end) return;
    const { target } = this.#devices;
    if (!this.#zeroes.targetIsZero) {
      await onSide('target', target.zero(offset, end - offset, { unmap }));
    }
    this.#mark(offset, end);
  }

  #mark(offset: number, end: number): void {
    this.#copied.set(offset, end - offset);
    this.#here.reset(offset, end - offset);
  }

  /** A target that has lost its connection may have given what was there before the copies. */
  #checkTarget(): void {
    const { forgotten } = this.#devices.target;
    if (forgotten !== undefined) this.break(forgotten);
  }

  #deviceOf({ offset, length, kept }: Run): BlockDevice {
    if (this.#broken !== undefined) throw this.#broken;
    if (kept === 'here') return this.#devices.disk;
    if (kept === 'copied') return this.#devices.target;
    const message = `${length} bytes at ${offset} of the old content of ${this.#devices.disk.name} were given back, or never asked for: they cannot be read`;
    throw new LacunaError('ERR_DEVICE_IO', message, { offset, length });
  }

  *#runs(start: number, end: number): Generator<Run> {
    for (let offset = start; offset < end; ) {
      const copied = this.#copied.status(offset, end - offset);
      const here = this.#here.status(offset, end - offset);
      const length = copied.dirty ? copied.length : Math.min(copied.length, here.length);
      const kept = copied.dirty ? 'copied' : here.dirty ? 'here' : 'given back';
      yield { offset, length, kept };
      offset += length;
    }
  }

  #granules(offset: number, length: number): { start: number; end: number } {
    const { granularity, size } = this;
    const end = Math.min(size, alignUp(offset + length, granularity));
    return { start: alignDown(offset, granularity), end };
  }

  /** The granules that lie in a range as a whole. */
  #wholeGranules(offset: number, length: number): { start: number; end: number } {
    const { granularity, size } = this;
    const end = offset + length;
    return {
      start: alignUp(offset, granularity),
      end: end === size ? size : alignDown(end, granularity),
    };
  }

  async #hold(
    start: number,
    end: number,
    alone: boolean,
    work: () => Promise<void>,
  ): Promise<void> {
    const from = alignDown(start, this.granularity);
    const hold = this.#locks.acquire(from, alignUp(end, this.granularity), alone);
    try {
      if (hold.ready !== undefined) await hold.ready;
      await work();
    } finally {
      this.#locks.release(hold);
    }
  }
}
