/**
 * The data plane of a copy, in one thread: claim a window of the plan, then read, test for zero and write
 * its pieces, several requests in flight, until nothing is left to claim.
 *
 * Bits are cleared by the claim, before the read, and set again when a piece fails or is not reached. So at
 * any moment what is not yet moved is what the plan holds plus what is in flight, and after a failure the
 * plan alone is exact, but for what was left out on purpose.
 */
import type { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { abortedError, throwIfAborted } from '../errors/index.js';
import { Turns } from '../util/index.js';
import type { Arena, ArenaBlock } from '../wasm/index.js';
import type { Control, Counters } from './control.js';
import { type ErrorRules, isLost, onSide, SideError, withSide } from './error-policy.js';
import type { LeftOut } from './left-out.js';
import type { DetectZeroes, Side } from './options.js';
import { Pace } from './pace.js';
import { Repeater, type Settled } from './repeater.js';
import { type Turn, WriteOrder } from './write-order.js';
import { nextRun, shortestZero, ZERO_STEP, zeroStep } from './zero-runs.js';

/** How one thread drives its two devices; plain data, so that it can be posted to a worker. */
export interface Transfer {
  /** Requests in flight at first. */
  requests: number;
  /** Requests in flight where more of them make the copy faster. */
  mostRequests: number;
  /** Bytes of one request. */
  requestSize: number;
  /** Bytes of the plan that are claimed at once. */
  windowSize: number;
  detectZeroes: DetectZeroes;
  /** Whether zeroing what could not be read may make holes. */
  unmap: boolean;
  /** Every byte of the target that the plan holds reads as zero now. */
  targetIsZero: boolean;
  /** Write in the order of offsets; for one thread alone. */
  sequential: boolean;
  /** Flush the target when this thread has moved its share. */
  flush: boolean;
  rules: ErrorRules;
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
  /** Take the ranges that failed and may be left out. */
  leftOut: LeftOut;
  leftOutMap: Bitmap;
  signal: AbortSignal;
  /** Told of every piece that reached the target, once; the bytes are its own only during the call. */
  moved?: ((offset: number, bytes: Uint8Array) => void) | undefined;
}

export interface MoveOutcome {
  /** Why this thread ended before the plan was empty, or why the flush failed. */
  error?: unknown;
  /** Whether all that this thread has written is durable, as far as flushes were asked for. */
  flushed: boolean;
}

/** An earlier piece was not written, so those behind it must not be. */
const NOT_REACHED = Symbol('not reached');

/** Runs of a window; scattered data ends a window early rather than growing this. */
const WINDOW_RUNS = 1024;

/** One request of an offloaded copy: long enough to be cheap, short enough to be stopped. */
const OFFLOAD_SIZE = 16 * 1024 * 1024;

/**
 * Moves what the plan holds until nothing is left, or the control says stop, or a request fails for good. Never
 * throws: what was moved before a failure counts, and is flushed.
 */
export async function move(options: MoverOptions): Promise<MoveOutcome> {
  const { target, control, flush, signal } = options;
  const error = await failureOf(new Mover(options).run());
  const isTargetLost = error instanceof SideError && error.side === 'target' && isLost(error.cause);
  if (isTargetLost || signal.aborted) return { error, flushed: false };
  if (!flush) return { error, flushed: true };
  const unflushed = await failureOf(onSide('target', control.flush(target, signal)));
  return { error: error ?? unflushed, flushed: unflushed === undefined };
}

/** Why some work failed; undefined when it did not. */
async function failureOf(work: Promise<void>): Promise<unknown> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error;
  }
}

class Mover {
  readonly #options: MoverOptions;
  readonly #zeroStep: number;
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
  #failure: { readonly error: unknown } | undefined;
  readonly #pace: Pace;
  readonly #order: WriteOrder | undefined;
  readonly #lanes: Promise<void>[] = [];
  #running = 0;
  readonly #turns = new Turns();
  readonly #repeater: Repeater;
  /** The smallest piece that a limited rate cuts. */
  readonly #smallest: number;

  constructor(options: MoverOptions) {
    this.#options = options;
    // What the system copies inside itself is seen by nobody.
    this.#offload = options.detectZeroes === 'off' && options.moved === undefined;
    this.#repeater = new Repeater(options);
    this.#order = options.sequential ? new WriteOrder() : undefined;
    this.#pace = new Pace(options.requests, options.mostRequests);
    this.#smallest = Math.max(ZERO_STEP, options.plan.granularity);
    this.#zeroStep = zeroStep(options.target.limits);
    this.#shortestZero = shortestZero(options.target, options.targetIsZero);
  }

  async run(): Promise<void> {
    const slots = this.#allocate(this.#pace.lanes);
    for (const slot of slots) this.#start(slot);
    // A lane may start others while it runs, so that this goes on until the last one has ended.
    for (const lane of this.#lanes) await lane;
    this.#putBack();
    if (this.#failure) throw this.#failure.error;
    throwIfAborted(this.#options.signal);
  }

  /** A slot for each request in flight, before anything is claimed. */
  #allocate(count: number): ArenaBlock[] {
    const { arena, requestSize } = this.#options;
    const slots: ArenaBlock[] = [];
    try {
      while (slots.length < count) slots.push(arena.allocate(requestSize));
    } catch (error) {
      for (const slot of slots) slot.free();
      throw error;
    }
    return slots;
  }

  #start(slot: ArenaBlock): void {
    this.#running++;
    this.#lanes.push(this.#lane(slot));
  }

  /** One request after another, through one slot of the arena. Never throws. */
  async #lane(slot: ArenaBlock): Promise<void> {
    try {
      await this.#work(slot);
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      slot.free();
    }
  }

  /** A lane counts until the moment when it decides to end, or all of them might find that they are too many. */
  async #work(slot: ArenaBlock): Promise<void> {
    try {
      while (this.#running <= this.#pace.lanes) {
        await this.#turns.next();
        if (!(await this.#next(slot))) return;
        if (this.#running < this.#pace.lanes) this.#startMore();
      }
    } finally {
      this.#running--;
    }
  }

  /** Deals with the next piece; false where there is none, or the copy must not go on. */
  async #next(slot: ArenaBlock): Promise<boolean> {
    const { control, plan } = this.#options;
    if (control.paused) await control.mayGo();
    const length = this.#take();
    if (length === 0) return false;
    const offset = this.#from - length;
    const turn = this.#order?.take();
    try {
      if (control.isLimited && !(await control.mayMove(length))) {
        this.#failed = true;
        plan.set(offset, length);
        return false;
      }
      await this.#piece(slot, offset, length, turn);
    } finally {
      turn?.end();
    }
    this.#pace.done(length, performance.now());
    return true;
  }

  /** Does as well as it can: where there is no memory for more requests, those in flight go on. */
  #startMore(): void {
    try {
      for (const slot of this.#allocate(this.#pace.lanes - this.#running)) this.#start(slot);
    } catch {
      this.#pace.stay(this.#running);
    }
  }

  /** Cuts the next piece off the window; its length, and its end in `#from`. 0 when there is no more. */
  #take(): number {
    const { control, requestSize } = this.#options;
    if (this.#failed || control.stopped) return 0;
    if (this.#from === this.#end && !this.#nextRun()) return 0;
    const most = this.#offload ? Math.max(OFFLOAD_SIZE, requestSize) : requestSize;
    const size = Math.min(most, Math.max(this.#smallest, control.pieceSize));
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

  async #piece(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<void> {
    const { control, plan, remains, signal } = this.#options;
    if (this.#offload && !(await this.#mayGoOn(turn))) {
      plan.set(offset, length);
      return;
    }
    if (this.#offload && (await this.#copyInside(offset, length))) {
      remains?.reset(offset, length);
      return;
    }
    let done = 0;
    let error: unknown;
    // A piece cut for an offload that turned out impossible may be longer than a slot.
    do {
      const size = Math.min(slot.length, length - done);
      const settled = await this.#copySurely(slot, offset + done, size, turn);
      done += settled.bytes;
      error = settled.error;
      if (settled.bytes < size) break;
    } while (done < length && (await control.mayGo()));
    if (done === length) return;
    this.#failed = true;
    plan.set(offset + done, length - done);
    if (error === undefined || error === NOT_REACHED) return;
    // Whoever waits for its turn, in this thread or another, must not go on for long.
    control.stop();
    throw signal.aborted ? abortedError(signal) : error;
  }

  /** Copies a piece, again and again where it fails, as the policies say. */
  async #copySurely(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<Settled> {
    try {
      await this.#copyThrough(slot, offset, length, turn);
      return { bytes: length };
    } catch (error) {
      const request = (from: number, size: number) => this.#copyThrough(slot, from, size, turn);
      return this.#repeater.settle(error, offset, length, request);
    }
  }

  /**
   * Lets the system copy, where it can, without the bytes passing through this process. Where that fails, reading
   * and writing tells which side it was.
   */
  async #copyInside(offset: number, length: number): Promise<boolean> {
    const { source, target, counters, signal } = this.#options;
    const range = { sourceOffset: offset, targetOffset: offset, length };
    const copied = target.copyFrom(source, range, { signal });
    if (!(await copied.catch(() => false))) {
      this.#offload = false;
      return false;
    }
    counters.requests += 1;
    counters.movedBytes += length;
    return true;
  }

  async #copyThrough(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<void> {
    const { source, counters, detectZeroes, moved, remains, signal } = this.#options;
    const bytes = length === slot.length ? slot.bytes : slot.bytes.subarray(0, length);
    let side: Side = 'source';
    try {
      await source.read(offset, bytes, { signal });
      counters.requests += 1;
      if (!(await this.#mayGoOn(turn))) throw NOT_REACHED;
      side = 'target';
      if (detectZeroes === 'off') await this.#write(offset, bytes);
      else await this.#writeSparsely(slot, offset, length);
    } catch (error) {
      throw withSide(side, error);
    }
    moved?.(offset, bytes);
    remains?.reset(offset, length);
  }

  /** Waits until all earlier pieces are done with; false where one of them was not written. */
  async #mayGoOn(turn: Turn | undefined): Promise<boolean> {
    if (turn === undefined) return true;
    await turn.come;
    return !this.#failed;
  }

  async #writeSparsely(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    const { arena } = this.#options;
    const step = this.#zeroStep;
    const scan = { arena, block: slot, end: length, step, shortest: this.#shortestZero };
    // Steps begin where the target's blocks do, not where the piece does.
    const lead = Math.min(length, (step - (offset % step)) % step);
    for (let at = 0; at < length; ) {
      const run = nextRun(at < lead ? { ...scan, end: lead } : scan, at);
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
