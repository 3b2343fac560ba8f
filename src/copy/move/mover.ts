/**
 * The data plane of a copy, in one thread: claim a window of the plan, then read, test for zero and write
 * its pieces, several requests in flight, until nothing is left to claim.
 *
 * Bits are cleared by the claim, before the read, and set again when a piece fails or is not reached. So at
 * any moment what is not yet moved is what the plan holds plus what is in flight, and after a failure the
 * plan alone is exact, but for what was left out on purpose.
 */
import { abortedError, throwIfAborted } from '../../errors/index.js';
import { Lanes } from '../../util/index.js';
import type { ArenaBlock } from '../../wasm/index.js';
import { isLost, onSide, SideError } from '../options/index.js';
import { Pace } from './pace.js';
import type { Ends, Shared, Transfer, Work } from './parts.js';
import { PieceCopier } from './piece-copier.js';
import type { Settled } from './repeater.js';
import { withoutReading } from './unread-zeroes.js';
import { Window } from './window.js';
import { type Turn, WriteOrder } from './write-order.js';
import { shortestZero, ZERO_STEP } from './zero-runs.js';

export interface MoverOptions {
  ends: Ends;
  work: Work;
  transfer: Transfer;
  shared: Shared;
}

export interface MoveOutcome {
  /** Why this thread ended before the plan was empty, or why the flush failed. */
  error?: unknown;
  /** Whether all that this thread has written is durable, as far as flushes were asked for. */
  flushed: boolean;
}

/** A request after the other, through one slot of the arena. */
interface Lane {
  slot: ArenaBlock;
}

const NOTHING: Settled = { bytes: 0 };

/** One request of an offloaded copy: long enough to be cheap, short enough to be stopped. */
const OFFLOAD_SIZE = 16 * 1024 * 1024;

/**
 * Moves what the plan holds until nothing is left, or the control says stop, or a request fails for good. Never
 * throws: what was moved before a failure counts, and is flushed.
 */
export async function move(options: MoverOptions): Promise<MoveOutcome> {
  const { ends, transfer, shared } = options;
  const { control, signal } = shared;
  const error = await failureOf(new Mover(options).run());
  const isTargetLost = error instanceof SideError && error.side === 'target' && isLost(error.cause);
  if (isTargetLost || signal.aborted) return { error, flushed: false };
  if (!transfer.flush) return { error, flushed: true };
  const unflushed = await failureOf(onSide('target', control.flush(ends.target, signal)));
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
  readonly #work: Work;
  readonly #shared: Shared;
  readonly #window: Window;
  readonly #copier: PieceCopier;
  readonly #pace: Pace;
  readonly #order: WriteOrder | undefined;
  /** The smallest piece that a limited rate cuts. */
  readonly #smallest: number;
  /** The shortest piece that is zeroed, if nothing of it is read, rather than written. */
  readonly #shortestZero: number;
  #offload: boolean;
  #failed = false;

  constructor({ ends, work, transfer, shared }: MoverOptions) {
    this.#work = work;
    this.#shared = shared;
    const { plan, unread, moved } = work;
    const { source, target } = ends;
    const { detectZeroes, targetIsZero } = transfer.policy;
    this.#window = new Window(plan, transfer.windowSize);
    const hasUnread = unread !== undefined && unread.count > 0;
    const asked = hasUnread ? { source: withoutReading(source, unread), target } : ends;
    this.#copier = new PieceCopier(asked, work, transfer.policy, shared);
    this.#pace = new Pace(transfer.pace);
    this.#order = transfer.sequential ? new WriteOrder() : undefined;
    this.#shortestZero = detectZeroes === 'off' ? Infinity : shortestZero(target, targetIsZero);
    const least = hasUnread && detectZeroes !== 'off' ? this.#shortestZero : ZERO_STEP;
    this.#smallest = Math.max(least, plan.granularity);
    // What the system copies inside itself is seen by nobody.
    this.#offload = detectZeroes === 'off' && moved === undefined;
  }

  async run(): Promise<void> {
    const { arena, signal } = this.#shared;
    const pace = this.#pace;
    const lanes = new Lanes();
    const failure = await failureOf(
      lanes.run<Lane>({
        count: () => pace.requests,
        open: () => ({ slot: arena.allocate(pace.requestSize) }),
        close: ({ slot }) => slot.free(),
        step: (lane) => {
          this.#fit(lane, lanes.running);
          return this.#next(lane.slot);
        },
        // Does as well as it can: where there is no memory for more requests, those in flight go on.
        crowded: (running) => pace.stay(running, pace.requestSize),
      }),
    );
    this.#window.putBack();
    if (failure !== undefined) throw failure;
    throwIfAborted(signal);
  }

  /** Exchanges the slot of a lane for one of the size that requests have now. */
  #fit(lane: Lane, running: number): void {
    const { slot } = lane;
    const { requestSize } = this.#pace;
    if (slot.length === requestSize) return;
    try {
      lane.slot = this.#shared.arena.allocate(requestSize);
      slot.free();
    } catch {
      if (slot.length < requestSize) this.#pace.stay(running, slot.length);
    }
  }

  /** Deals with the next piece; false where there is none, or the copy must not go on. */
  async #next(slot: ArenaBlock): Promise<boolean> {
    const { control } = this.#shared;
    if (control.paused) {
      await control.mayGo();
      this.#pace.interrupted();
    }
    const length = this.#take();
    if (length === 0) return false;
    const { offset } = this.#window;
    const turn = this.#order?.take();
    const mayMove = !control.isLimited || (await this.#mayMove(offset, length));
    const { bytes, error } = mayMove ? await this.#move(slot, offset, length, turn) : NOTHING;
    if (bytes < length) {
      this.#failed = true;
      this.#work.plan.set(offset + bytes, length - bytes);
    }
    turn?.end(bytes === length);
    if (error !== undefined) this.#giveUp(error);
    // How fast a limited copy goes tells nothing of how fast it could.
    if (control.isLimited) this.#pace.interrupted();
    else this.#pace.done(bytes, performance.now());
    return bytes === length;
  }

  /** Waits until the rate allows a piece; what is zeroed without being read costs nothing. */
  #mayMove(offset: number, length: number): Promise<boolean> {
    const { control } = this.#shared;
    const { unread } = this.#work;
    const isZeroed =
      length >= this.#shortestZero && unread?.nextZero(offset, offset + length) === -1;
    return isZeroed ? control.mayGo() : control.mayMove(length);
  }

  /** Cuts the next piece off the window; its length, 0 when there is no more. */
  #take(): number {
    const { control } = this.#shared;
    if (this.#failed || control.stopped) return 0;
    const { requestSize } = this.#pace;
    const most = this.#offload ? Math.max(OFFLOAD_SIZE, requestSize) : requestSize;
    return this.#window.cut(Math.min(most, Math.max(this.#smallest, control.pieceSize)));
  }

  /** Moves a piece, or as much of it, from its beginning, as it can. Never throws. */
  async #move(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<Settled> {
    if (this.#offload) {
      if (turn !== undefined && !(await turn.come)) return NOTHING;
      const inside = await this.#copier.copyInside(offset, length);
      if (inside !== undefined) return inside;
      this.#offload = false;
    }
    if (length <= slot.length) return this.#copier.copy(slot, offset, length, turn);
    return this.#moveParts(slot, offset, length, turn);
  }

  /** A piece that is longer than a slot: cut for an offload that turned out impossible. */
  async #moveParts(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<Settled> {
    const { control } = this.#shared;
    for (let at = 0; at < length; at += slot.length) {
      if (at > 0 && !(await control.mayGo())) return { bytes: at };
      const size = Math.min(slot.length, length - at);
      const { bytes, error } = await this.#copier.copy(slot, offset + at, size, turn);
      if (bytes < size) return { bytes: at + bytes, error };
    }
    return { bytes: length };
  }

  #giveUp(error: unknown): never {
    const { control, signal } = this.#shared;
    // Whoever waits for its turn, in this thread or another, must not go on for long.
    control.stop();
    throw signal.aborted ? abortedError(signal) : error;
  }
}
