/** Copies one piece of a disk: read, test for zero, write, and again where that fails, as the policies say. */

import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import type { Arena, ArenaBlock } from '../../wasm/index.js';
import { type DetectZeroes, type Side, withSide } from '../options/index.js';
import { Repeater, type RepeaterOptions, type Settled } from './repeater.js';
import type { Turn } from './write-order.js';
import { nextRun, shortestZero, zeroStep } from './zero-runs.js';

export interface PieceOptions extends RepeaterOptions {
  source: BlockDevice;
  arena: Arena;
  detectZeroes: DetectZeroes;
  /** Every byte of the target that is going to be written reads as zero now. */
  targetIsZero: boolean;
  /** Beside the plan: what is not known to have reached the target, what is in flight included. */
  remains?: Bitmap | undefined;
  /** Told of every piece that reached the target, once; the bytes are its own only during the call. */
  moved?: ((offset: number, bytes: Uint8Array) => void) | undefined;
}

/** An earlier piece was not written, so those behind it must not be. */
const NOT_REACHED = Symbol('not reached');

export class PieceCopier {
  readonly #options: PieceOptions;
  readonly #repeater: Repeater;
  readonly #zeroStep: number;
  readonly #shortestZero: number;

  constructor(options: PieceOptions) {
    this.#options = options;
    this.#repeater = new Repeater(options);
    this.#zeroStep = zeroStep(options.target.limits);
    this.#shortestZero = shortestZero(options.target, options.targetIsZero);
  }

  /** Copies a piece that fits the slot, again and again where it fails. Never throws. */
  async copy(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<Settled> {
    try {
      await this.#copyOnce(slot, offset, length, turn);
      return { bytes: length };
    } catch (error) {
      if (error === NOT_REACHED) return { bytes: 0 };
      const request = (from: number, size: number) => this.#copyOnce(slot, from, size, turn);
      const settled = await this.#repeater.settle(error, offset, length, request);
      return settled.error === NOT_REACHED ? { bytes: settled.bytes } : settled;
    }
  }

  /**
   * Lets the system copy, where it can, without the bytes passing through this process. False where it did not: then
   * reading and writing tells which side it was.
   */
  async copyInside(offset: number, length: number): Promise<boolean> {
    const { source, target, counters, remains, signal } = this.#options;
    const range = { sourceOffset: offset, targetOffset: offset, length };
    const copied = target.copyFrom?.(source, range, { signal }).catch(() => false);
    if (!(await copied)) return false;
    counters.requests += 1;
    counters.movedBytes += length;
    remains?.reset(offset, length);
    return true;
  }

  async #copyOnce(
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
      if (turn !== undefined && !(await turn.come)) throw NOT_REACHED;
      side = 'target';
      if (detectZeroes === 'off') await this.#write(offset, bytes);
      else await this.#writeSparsely(slot, offset, length);
    } catch (error) {
      throw withSide(side, error);
    }
    moved?.(offset, bytes);
    remains?.reset(offset, length);
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
}
