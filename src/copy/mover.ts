/**
 * The data plane of a copy, in one thread: claim a window of the plan, then read, test for zero and write
 * its pieces, several requests in flight, until nothing is left to claim.
 *
 * Bits are cleared by the claim, before the read, and set again when a piece fails or is not reached. So at
 * any moment what is not yet moved is what the plan holds plus what is in flight, and after a failure the
 * plan alone is exact.
 */
import type { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { abortedError, throwIfAborted } from '../errors/index.js';
import { Turns } from '../util/index.js';
import type { Arena, ArenaBlock } from '../wasm/index.js';
import type { Control, Counters } from './control.js';
import type { DetectZeroes } from './options.js';
import { settleAll } from './settle-all.js';
import { nextRun, shortestZero } from './zero-runs.js';

/** How one thread drives its two devices; plain data, so that it can be posted to a worker. */
export interface Transfer {
  /** Requests in flight. */
  requests: number;
  /** Bytes of one request. */
  requestSize: number;
  /** Bytes of the plan that are claimed at once. */
  windowSize: number;
  detectZeroes: DetectZeroes;
  /** Every byte of the target that the plan holds reads as zero now. */
  targetIsZero: boolean;
  /** Flush the target when this thread has moved its share. */
  flush: boolean;
}

export interface MoverOptions extends Transfer {
  source: Device;
  target: Device;
  plan: Bitmap;
  /** Beside the plan: what is not known to have reached the target, what is in flight included. */
  remains?: Bitmap | undefined;
  arena: Arena;
  control: Control;
  counters: Counters;
  signal: AbortSignal;
  /** Told of every piece that reached the target, once; the bytes are its own only during the call. */
  moved?: ((offset: number, bytes: Uint8Array) => void) | undefined;
}

/** Runs of a window; scattered data ends a window early rather than growing this. */
const WINDOW_RUNS = 1024;

/** One request of an offloaded copy: long enough to be cheap, short enough to be stopped. */
const OFFLOAD_SIZE = 16 * 1024 * 1024;

/** Moves what the plan holds until nothing is left, or the control says stop, or a request fails. */
export async function move(options: MoverOptions): Promise<void> {
  const mover = new Mover(options);
  await mover.run();
  if (options.flush && !options.control.stopped) {
    await options.control.flush(options.target, options.signal);
  }
}

class Mover {
  readonly #options: MoverOptions;
  readonly #shortestZero: number;
  /** The claimed window: pairs of offset and length. */
  readonly #window = new Float64Array(2 * WINDOW_RUNS);
  #windowLength = 0;
  #windowIndex = 0;
  /** What is left of the run that pieces are being cut from. */
  #from = 0;
  #end = 0;
  #offload: boolean;
  #failed = false;
  readonly #turns = new Turns();

  constructor(options: MoverOptions) {
    this.#options = options;
    // What the system copies inside itself is seen by nobody.
    this.#offload = options.detectZeroes === 'off' && options.moved === undefined;
    this.#shortestZero = shortestZero(options.target, options.targetIsZero);
  }

  async run(): Promise<void> {
    const slots = this.#allocate();
    try {
      await settleAll(slots.map((slot) => this.#lane(slot)));
    } finally {
      for (const slot of slots) slot.free();
      this.#putBack();
    }
    throwIfAborted(this.#options.signal);
  }

  /** A slot for each request in flight, before anything is claimed. */
  #allocate(): ArenaBlock[] {
    const { arena, requests, requestSize } = this.#options;
    const slots: ArenaBlock[] = [];
    try {
      while (slots.length < requests) slots.push(arena.allocate(requestSize));
    } catch (error) {
      for (const slot of slots) slot.free();
      throw error;
    }
    return slots;
  }

  /** One request after another, through one slot of the arena. */
  async #lane(slot: ArenaBlock): Promise<void> {
    for (;;) {
      await this.#turns.next();
      const length = this.#take();
      if (length === 0) return;
      const offset = this.#from - length;
      await this.#piece(slot, offset, length);
    }
  }

  /** Cuts the next piece off the window; its length, and its end in `#from`. 0 when there is no more. */
  #take(): number {
    const { control, requestSize } = this.#options;
    if (this.#failed || control.stopped) return 0;
    if (this.#from === this.#end && !this.#nextRun()) return 0;
    const size = this.#offload ? Math.max(OFFLOAD_SIZE, requestSize) : requestSize;
    // Pieces end at multiples of the request size, so that all but the edges of a run are aligned.
    const end = Math.min(this.#end, this.#from - (this.#from % size) + size);
    const length = end - this.#from;
    this.#from = end;
    return length;
  }

  #nextRun(): boolean {
    if (this.#windowIndex === this.#windowLength) {
      const { plan, windowSize } = this.#options;
      this.#windowLength = 2 * plan.claim(this.#window, { maxBytes: windowSize });
      this.#windowIndex = 0;
      if (this.#windowLength === 0) return false;
    }
    this.#from = this.#window[this.#windowIndex];
    this.#end = this.#from + this.#window[this.#windowIndex + 1];
    this.#windowIndex += 2;
    return true;
  }

  async #piece(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    const { plan, remains, requestSize, signal } = this.#options;
    let done = 0;
    try {
      if (this.#offload && (await this.#copyInside(offset, length))) {
        remains?.reset(offset, length);
        return;
      }
      // A piece cut for an offload that turned out impossible may be longer than a slot.
      while (done < length) {
        const size = Math.min(requestSize, length - done);
        await this.#copyThrough(slot, offset + done, size);
        remains?.reset(offset + done, size);
        done += size;
      }
    } catch (error) {
      this.#failed = true;
      plan.set(offset + done, length - done);
      throw signal.aborted ? abortedError(signal) : error;
    }
  }

  /** Lets the system copy, where it can, without the bytes passing through this process. */
  async #copyInside(offset: number, length: number): Promise<boolean> {
    const { source, target, counters, signal } = this.#options;
    throwIfAborted(signal);
    const range = { sourceOffset: offset, targetOffset: offset, length };
    if (!(await target.copyFrom(source, range))) {
      this.#offload = false;
      return false;
    }
    counters.requests += 1;
    counters.movedBytes += length;
    return true;
  }

  async #copyThrough(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    const { source, counters, detectZeroes, moved, signal } = this.#options;
    const bytes = length === slot.length ? slot.bytes : slot.bytes.subarray(0, length);
    await source.read(offset, bytes, { signal });
    counters.requests += 1;
    if (detectZeroes === 'off') await this.#write(offset, bytes);
    else await this.#writeSparsely(slot, offset, length);
    moved?.(offset, bytes);
  }

  async #writeSparsely(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    const { arena } = this.#options;
    const scan = { arena, block: slot, end: length, shortest: this.#shortestZero };
    for (let at = 0; at < length; ) {
      const run = nextRun(scan, at);
      const end = Math.abs(run);
      if (run > 0) await this.#zero(offset + at, end - at);
      else await this.#write(offset + at, slot.bytes.subarray(at, end));
      at = end;
    }
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const { target, counters, signal } = this.#options;
    await target.write(offset, bytes, { signal });
    counters.requests += 1;
    counters.movedBytes += bytes.length;
  }

  async #zero(offset: number, length: number): Promise<void> {
    const { target, counters, detectZeroes, targetIsZero, signal } = this.#options;
    if (targetIsZero) {
      counters.skippedBytes += length;
      return;
    }
    await target.zero(offset, length, { unmap: detectZeroes === 'unmap', signal });
    counters.requests += 1;
    counters.zeroedBytes += length;
  }

  /** What was claimed and not reached is dirty again. */
  #putBack(): void {
    const { plan } = this.#options;
    if (this.#from < this.#end) plan.set(this.#from, this.#end - this.#from);
    for (let i = this.#windowIndex; i < this.#windowLength; i += 2) {
      plan.set(this.#window[i], this.#window[i + 1]);
    }
    this.#from = this.#end;
    this.#windowIndex = this.#windowLength;
  }
}
