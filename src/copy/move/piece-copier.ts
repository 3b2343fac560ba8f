/** Copies one piece of a disk: read, test for zero, write, and again where that fails, as the policies say. */

import type { ArenaBlock } from '../../wasm/index.js';
import { type Side, withSide } from '../options/index.js';
import type { Ends, Policy, Shared, Work } from './parts.js';
import { Repeater, type Settled } from './repeater.js';
import type { Turn } from './write-order.js';
import { nextRun, shortestZero, zeroStep } from './zero-runs.js';

/** An earlier piece was not written, so those behind it must not be. */
const NOT_REACHED = Symbol('not reached');

export class PieceCopier {
  readonly #ends: Ends;
  readonly #work: Omit<Work, 'plan' | 'unread'>;
  readonly #policy: Policy;
  readonly #shared: Shared;
  readonly #repeater: Repeater;
  readonly #zeroStep: number;
  readonly #shortestZero: number;

  constructor(ends: Ends, work: Omit<Work, 'plan' | 'unread'>, policy: Policy, shared: Shared) {
    const { target } = ends;
    this.#ends = ends;
    this.#work = work;
    this.#policy = policy;
    this.#shared = shared;
    this.#repeater = new Repeater(target, work, policy, shared);
    this.#zeroStep = zeroStep(target.limits);
    this.#shortestZero = shortestZero(target, policy.targetIsZero);
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
   * Lets the system copy, where it can, without the bytes passing through this process. Undefined where it did not: then
   * reading and writing tells which side it was. Never throws.
   */
  async copyInside(offset: number, length: number): Promise<Settled | undefined> {
    const { source, target } = this.#ends;
    const { counters, signal } = this.#shared;
    const range = { sourceOffset: offset, targetOffset: offset, length };
    try {
      if (!(await target.copyFrom?.(source, range, { signal }))) return undefined;
    } catch {
      return undefined;
    }
    counters.requests += 1;
    counters.movedBytes += length;
    try {
      this.#work.remains?.reset(offset, length);
      return { bytes: length };
    } catch (error) {
      // There may be no memory to note it.
      return { bytes: 0, error };
    }
  }

  async #copyOnce(
    slot: ArenaBlock,
    offset: number,
    length: number,
    turn: Turn | undefined,
  ): Promise<void> {
    const { source } = this.#ends;
    const { moved, remains } = this.#work;
    const { counters, signal } = this.#shared;
    const bytes = length === slot.length ? slot.bytes : slot.bytes.subarray(0, length);
    let side: Side = 'source';
    try {
      await source.read(offset, bytes, { signal });
      counters.requests += 1;
      if (turn !== undefined && !(await turn.come)) throw NOT_REACHED;
      side = 'target';
      if (this.#policy.detectZeroes === 'off') await this.#write(offset, bytes);
      else await this.#writeSparsely(slot, offset, length);
    } catch (error) {
      throw withSide(side, error);
    }
    moved?.(offset, bytes);
    remains?.reset(offset, length);
  }

  async #writeSparsely(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    const { arena } = this.#shared;
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
    const { counters, signal } = this.#shared;
    await this.#ends.target.write(offset, bytes, { signal });
    counters.requests += 1;
    counters.movedBytes += bytes.length;
  }

  async #zero(offset: number, length: number): Promise<void> {
    const { detectZeroes, targetIsZero } = this.#policy;
    const { counters, signal } = this.#shared;
    if (targetIsZero) {
      counters.skippedBytes += length;
      return;
    }
    await this.#ends.target.zero(offset, length, { unmap: detectZeroes === 'unmap', signal });
    counters.requests += 1;
    counters.zeroedBytes += length;
  }
}
