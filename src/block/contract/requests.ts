import { LacunaError, throwIfAborted } from '../../errors/index.js';
import { alignDown, orAborted, Turns } from '../../util/index.js';
import type {
  Capabilities,
  CopyRange,
  Driver,
  Limits,
  WriteOptions,
  ZeroOptions,
} from './driver.js';
import { Grid, type Part } from './grid.js';
import { checkedLimits } from './limits.js';
import { RangeLock } from './range-lock.js';

/** Unaligned reads up to this long go through one bounce buffer: one request instead of up to three. */
const BOUNCE = 64 * 1024;

/** What is written where a driver cannot zero. Never changed; untouched pages of it cost nothing. */
const ZEROES = new Uint8Array(1024 * 1024);

/** Called before each piece; throws when the device is closed or the signal has fired. */
export type Check = (signal?: AbortSignal) => void;

/**
 * Turns requests of any size and alignment into requests that a driver takes: pieces of at most
 * `limits.maximum` bytes, made of whole blocks of `limits.minimum` bytes. Blocks that a write covers in part
 * are read, changed and written back, one request at a time for each block, so that two neighbours cannot
 * undo one another. That holds within one opening of a device, not between two.
 *
 * An aligned request that fits goes straight to the driver.
 */
export class Requests {
  readonly #driver: Driver;
  readonly #limits: Limits;
  readonly #capabilities: Capabilities;
  readonly #check: Check;
  readonly #grid: Grid;
  readonly #locks = new RangeLock();
  readonly #closing = new AbortController();

  constructor(driver: Driver, capabilities: Capabilities, check: Check) {
    const limits = checkedLimits(driver.limits);
    this.#driver = driver;
    this.#limits = limits;
    this.#capabilities = capabilities;
    this.#check = check;
    this.#grid = new Grid(limits.minimum, driver.size);
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const length = target.byteLength;
    const whole = this.#grid.isWhole(offset, offset + length);
    if (whole && length <= this.#limits.maximum) return this.#driver.read(offset, target, signal);
    if (whole) return this.#readPieces(offset, target, signal);
    return this.#readParts(offset, target, signal);
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const end = offset + source.byteLength;
    if (!this.#grid.isWhole(offset, end)) return this.#writeParts(offset, source, options);
    if (this.#limits.minimum > 1) return this.#writeShared(offset, source, options);
    return this.#writePieces(offset, source, options);
  }

  /**
   * Whole blocks come first, the parts of blocks at both ends last: where the first request of a fast zero is
   * refused, nothing has been changed. A range longer than `limits.maximumZero` takes several requests, and
   * where a later one is refused, what the earlier ones zeroed stays zero.
   */
  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const parts = this.#grid.parts(offset, offset + length);
    for (const part of parts) {
      if (part.whole) await this.#hold(part, false, options, () => this.#zeroPieces(part, options));
    }
    for (const part of parts) {
      if (!part.whole) await this.#patch(part, undefined, options);
    }
  }

  /** Rounds inward: what is discarded in part is needed in part. */
  async discard(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    for (const part of this.#grid.parts(offset, offset + length)) {
      if (!part.whole) continue;
      const discard = (at: number, size: number) => this.#driver.discard!(at, size, signal);
      const pieces = () => this.#pieces(part, this.#limits.maximumZero, signal, discard);
      await this.#hold(part, false, { signal }, pieces);
    }
  }

  /** Lets the driver copy from another one; false where it cannot, which is known at the first piece. */
  async copyFrom(source: Driver, range: CopyRange, signal?: AbortSignal): Promise<boolean> {
    const { sourceOffset, targetOffset, length } = range;
    const target = { start: targetOffset, end: targetOffset + length };
    if (!this.#grid.isWhole(target.start, target.end)) return false;
    const { minimum, maximum } = this.#limits;
    if (minimum === 1 && length <= maximum) {
      this.#check(signal);
      return this.#driver.copyFrom!(source, range);
    }
    let possible = true;
    const copy = async (at: number, size: number) => {
      const from = sourceOffset + at - targetOffset;
      const piece = { sourceOffset: from, targetOffset: at, length: size };
      if (possible) possible = await this.#driver.copyFrom!(source, piece);
    };
    const pieces = () => this.#pieces(target, maximum, signal, copy);
    await this.#hold(target, false, { signal }, pieces);
    return possible;
  }

  /** Gives up what goes on for callers who are gone, and waits for its end; the others must have been waited for. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#locks.idle;
  }

  #readPieces(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const range = { start: offset, end: offset + target.byteLength };
    return this.#pieces(range, this.#limits.maximum, signal, (at, length) =>
      this.#driver.read(at, target.subarray(at - offset, at - offset + length), signal),
    );
  }

  async #readParts(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const end = offset + target.byteLength;
    const span = this.#grid.up(end) - this.#grid.down(offset);
    const small = span <= Math.min(BOUNCE, this.#limits.maximum);
    const parts = small ? [{ start: offset, end, whole: false }] : this.#grid.parts(offset, end);
    for (const part of parts) {
      this.#check(signal);
      const piece = target.subarray(part.start - offset, part.end - offset);
      if (part.whole) await this.#readPieces(part.start, piece, signal);
      else await this.#readThrough(part, piece, signal);
    }
  }

  async #readThrough(part: Part, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const start = this.#grid.down(part.start);
    const bounce = new Uint8Array(this.#grid.up(part.end) - start);
    await this.#driver.read(start, bounce, signal);
    target.set(bounce.subarray(part.start - start, part.end - start));
  }

  #writePieces(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const { maximum } = this.#limits;
    const length = source.byteLength;
    if (length <= maximum) return this.#driver.write!(offset, source, options);
    return this.#pieces(
      { start: offset, end: offset + length },
      maximum,
      options.signal,
      (at, size) =>
        this.#driver.write!(at, source.subarray(at - offset, at - offset + size), options),
    );
  }

  /** A write of whole blocks, which must not run beside a read-modify-write of one of them. */
  #writeShared(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const range = { start: offset, end: offset + source.byteLength };
    return this.#hold(range, false, options, () => this.#writePieces(offset, source, options));
  }

  async #writeParts(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    for (const part of this.#grid.parts(offset, offset + source.byteLength)) {
      this.#check(options.signal);
      const piece = source.subarray(part.start - offset, part.end - offset);
      if (part.whole) await this.#writeShared(part.start, piece, options);
      else await this.#patch(part, piece, options);
    }
  }

  /**
   * Changes a part of one block: to the bytes of `source`, or to zeroes. A caller who gives up is let go at once,
   * but the block is held until its write is over: a server could carry it out behind the next one, and so
   * undo a change that a neighbour was told is done.
   */
  #patch(part: Part, source: Uint8Array | undefined, options: WriteOptions): Promise<void> {
    const { fua, unrecorded, signal } = options;
    const start = this.#grid.down(part.start);
    const end = this.#grid.up(part.end);
    const change = this.#hold({ start, end }, true, { signal }, async () => {
      const block = new Uint8Array(end - start);
      await this.#driver.read(start, block, signal);
      // The bytes of a caller who has given up are its own again.
      throwIfAborted(signal);
      if (source === undefined) block.fill(0, part.start - start, part.end - start);
      else block.set(source, part.start - start);
      await this.#driver.write!(start, block, { fua, unrecorded, signal: this.#closing.signal });
    });
    return orAborted(change, signal);
  }

  async #zeroPieces(range: Interval, options: ZeroOptions): Promise<void> {
    if (!this.#capabilities.zero) return this.#writeZeroes(range, options);
    await this.#pieces(range, this.#limits.maximumZero, options.signal, async (at, length) => {
      try {
        await this.#driver.zero!(at, length, options);
      } catch (error) {
        if (options.fast === true || !isUnsupported(error)) throw error;
        await this.#writeZeroes({ start: at, end: at + length }, options);
      }
    });
  }

  #writeZeroes(range: Interval, { fua, unrecorded, signal }: WriteOptions): Promise<void> {
    const { minimum, maximum } = this.#limits;
    // What else a zero may say, a device below does not take with a write.
    const options = {
      ...(fua !== undefined && { fua }),
      ...(unrecorded !== undefined && { unrecorded }),
      ...(signal !== undefined && { signal }),
    };
    const zeroes = minimum > ZEROES.byteLength ? new Uint8Array(minimum) : ZEROES;
    const longest = alignDown(Math.min(zeroes.byteLength, maximum), minimum);
    return this.#pieces(range, longest, signal, (at, length) =>
      this.#driver.write!(at, zeroes.subarray(0, length), options),
    );
  }

  /** Makes requests for a range one after another, each at most `maximum` bytes long. */
  async #pieces(
    range: Interval,
    maximum: number,
    signal: AbortSignal | undefined,
    request: (offset: number, length: number) => Promise<void>,
  ): Promise<void> {
    const turns = new Turns();
    for (let at = range.start; at < range.end; ) {
      this.#check(signal);
      const length = Math.min(maximum, range.end - at);
      await request(at, length);
      at += length;
      if (at < range.end) await turns.next();
    }
  }

  /** Runs a change while it holds its blocks. Where blocks are bytes, no two requests share one. */
  async #hold(
    range: Interval,
    alone: boolean,
    options: { signal?: AbortSignal },
    change: () => Promise<void>,
  ): Promise<void> {
    if (this.#limits.minimum === 1) return change();
    const hold = this.#locks.acquire(range.start, range.end, alone);
    try {
      if (hold.ready !== undefined) await orAborted(hold.ready, options.signal);
      this.#check(options.signal);
      await change();
    } finally {
      this.#locks.release(hold);
    }
  }
}

interface Interval {
  readonly start: number;
  readonly end: number;
}

function isUnsupported(error: unknown): boolean {
  return error instanceof LacunaError && error.code === 'ERR_DEVICE_UNSUPPORTED';
}
