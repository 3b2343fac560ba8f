/**
 * One active bitmap for all that record: a write costs the same with one or a thousand of them.
 *
 *     oldest                                   newest
 *     generation ---> generation ---> ... ---> generation   <- record() writes here, and only here
 *       ^  ^             ^                        ^
 *       |  |             |                        |
 *     cursors of bitmaps that have not looked since then
 *
 * A generation holds the writes of a span of time. A bitmap that records has a cursor: the first
 * generation whose writes it has not taken over. When somebody looks at the bitmap, the generations
 * from its cursor on are merged into it and the cursor moves to a new, empty one; so a bitmap gets
 * exactly the writes from the moment its cursor was made.
 *
 * Invariants. Every generation but the newest is where some cursor stands; one that is left by its
 * last cursor is joined to the one before, which is read by those who read this one too, or freed
 * if there is none. So there are at most as many generations as cursors, and one more. Only when the
 * arena is full may one stay that is not needed. A generation is never coarser than a bitmap whose
 * cursor stands at it or before it; granularities are powers of two, so what is rounded outward
 * twice is the same as what was rounded at once.
 */
import type { Arena } from '../../wasm/index.js';
import { Bitmap } from '../bits/index.js';

interface Generation {
  bits: Bitmap;
  /** The same in coarser granules, for the many that will ask for them; not of the newest. */
  readonly coarser: Map<number, Bitmap>;
  /** Cursors that stand here. */
  cursors: number;
  /** Grows from old to new. */
  readonly sequence: number;
  previous: Generation | null;
  next: Generation | null;
}

export class Journal {
  /** Where writes go; null when nobody records. Only read it at once: the next look replaces it. */
  active: Bitmap | null = null;
  readonly #arena: Arena;
  /** How many cursors there are of each granularity, by its logarithm. */
  readonly #cursors = new Uint32Array(32);
  #newest: Generation | null = null;
  #size: number;

  constructor(size: number, arena: Arena) {
    this.#size = size;
    this.#arena = arena;
  }

  /** A cursor that sees every write from now on. */
  join(granularity: number): Cursor {
    const generation = this.#emptyGeneration(Math.min(granularity, this.#finest));
    return new Cursor(this, generation, granularity);
  }

  /** Gives the device another size. Every cursor must have caught up, so there is nothing to keep. */
  resize(size: number): void {
    this.active?.resize(size);
    this.#size = size;
  }

  /** @internal */
  enter(generation: Generation, granularity: number): void {
    generation.cursors++;
    this.#cursors[Math.log2(granularity)]++;
  }

  /** @internal */
  leave(generation: Generation, granularity: number): void {
    generation.cursors--;
    this.#cursors[Math.log2(granularity)]--;
    this.#tidy(generation);
  }

  /** @internal The writes since a generation began go to `target`; returns where to read on. */
  fold(from: Generation, target: Bitmap): Generation {
    const alone = from === this.#newest && from.cursors === 1 && from.previous === null;
    if (alone && from.bits.granularity === this.#finest) {
      target.merge(from.bits);
      from.bits.resetAll();
      return from;
    }
    const next = this.#emptyGeneration(this.#finest);
    for (let at: Generation = from; at !== next; at = at.next!) {
      target.merge(bitsFor(target.granularity, at));
    }
    return next;
  }

  /** The finest granularity of all cursors; infinite when there are none. */
  get #finest(): number {
    const shift = this.#cursors.findIndex((cursors) => cursors > 0);
    return shift < 0 ? Number.POSITIVE_INFINITY : 2 ** shift;
  }

  /** The newest generation, or a new one, without a write and of this granularity. */
  #emptyGeneration(granularity: number): Generation {
    const newest = this.#newest;
    if (newest === null || newest.bits.count > 0) return this.#append(granularity);
    if (newest.bits.granularity !== granularity) {
      const bits = this.#create(granularity);
      newest.bits.free();
      newest.bits = bits;
      this.active = bits;
    }
    return newest;
  }

  #append(granularity: number): Generation {
    const previous = this.#newest;
    const sequence = previous === null ? 0 : previous.sequence + 1;
    const bits = this.#create(granularity);
    const counts = { cursors: 0, sequence };
    const generation = { bits, coarser: new Map(), ...counts, previous, next: null };
    this.#newest = generation;
    this.active = bits;
    if (previous !== null) {
      previous.next = generation;
      this.#tidy(previous);
    }
    return generation;
  }

  /** @internal */
  get generations(): number {
    let count = 0;
    for (let at = this.#newest; at !== null; at = at.previous) count++;
    return count;
  }

  #create(granularity: number): Bitmap {
    return new Bitmap({ size: this.#size, granularity, arena: this.#arena });
  }

  /** Restores the first invariant after a generation may have lost its last cursor. */
  #tidy(generation: Generation): void {
    if (this.#finest === Number.POSITIVE_INFINITY) {
      this.#freeAll();
      return;
    }
    if (generation.cursors > 0 || generation === this.#newest) return;
    if (generation.previous === null) this.#freeOldest(generation);
    else if (joined(generation.previous, generation)) freeGeneration(generation);
  }

  #freeOldest(oldest: Generation): void {
    for (let at: Generation | null = oldest; at !== null && at !== this.#newest; at = at.next) {
      if (at.cursors > 0) return;
      freeGeneration(at);
    }
  }

  #freeAll(): void {
    for (let at = this.#newest; at !== null; at = at.previous) freeBits(at);
    this.#newest = null;
    this.active = null;
  }
}

/** The point up to which a bitmap has taken over writes. It is freed when recording ends. */
export class Cursor {
  readonly #journal: Journal;
  readonly #granularity: number;
  #at: Generation;

  /** @internal Use {@link Journal.join}. */
  constructor(journal: Journal, at: Generation, granularity: number) {
    this.#journal = journal;
    this.#granularity = granularity;
    this.#at = at;
    journal.enter(at, granularity);
  }

  /** Higher for cursors that stand at newer writes. */
  get sequence(): number {
    return this.#at.sequence;
  }

  /** A second cursor at the same point: what it sees is kept until that one is freed too. */
  clone(): Cursor {
    return new Cursor(this.#journal, this.#at, this.#granularity);
  }

  /**
   * Adds the writes since the last time to `target`, which has this cursor's granularity.
   *
   * @throws LacunaError ERR_ARENA_FULL; the same writes come again the next time then.
   */
  fold(target: Bitmap): void {
    const from = this.#at;
    const next = this.#journal.fold(from, target);
    if (next === from) return;
    this.#at = next;
    this.#journal.enter(next, this.#granularity);
    this.#journal.leave(from, this.#granularity);
  }

  free(): void {
    this.#journal.leave(this.#at, this.#granularity);
  }
}

/** The writes of a generation in granules of a bitmap; what is rounded once is kept for others. */
function bitsFor(granularity: number, { bits, coarser }: Generation): Bitmap {
  if (granularity === bits.granularity) return bits;
  const known = coarser.get(granularity);
  if (known !== undefined) return known;
  const rounded = new Bitmap({ size: bits.size, granularity, arena: bits.arena });
  try {
    rounded.merge(bits);
  } catch (error) {
    rounded.free();
    throw error;
  }
  coarser.set(granularity, rounded);
  return rounded;
}

/** Joining saves memory and time only: without memory for it, the two stay apart. */
function joined(target: Generation, source: Generation): boolean {
  try {
    target.bits.merge(source.bits);
  } catch (error) {
    if ((error as { code?: string }).code === 'ERR_ARENA_FULL') return false;
    throw error;
  }
  freeCoarser(target);
  return true;
}

function freeGeneration(generation: Generation): void {
  const { previous, next } = generation;
  freeBits(generation);
  if (previous !== null) previous.next = next;
  if (next !== null) next.previous = previous;
}

function freeBits(generation: Generation): void {
  generation.bits.free();
  freeCoarser(generation);
}

function freeCoarser({ coarser }: Generation): void {
  for (const bits of coarser.values()) bits.free();
  coarser.clear();
}
