import type { Bitmap } from '../../bitmap/index.js';

/** Runs of a window; scattered data ends a window early rather than growing this. */
const WINDOW_RUNS = 1024;

/** The part of the plan that one thread has claimed, and the pieces that are cut off it. */
export class Window {
  readonly #plan: Bitmap;
  /** Bytes that are claimed at once. */
  readonly #size: number;
  /** Pairs of offset and length. */
  readonly #runs = new Float64Array(2 * WINDOW_RUNS);
  #length = 0;
  #index = 0;
  /** What is left of the run that pieces are being cut from. */
  #from = 0;
  #end = 0;
  #offset = 0;

  constructor(plan: Bitmap, size: number) {
    this.#plan = plan;
    this.#size = size;
  }

  /** Where the piece begins that was cut off last. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * Cuts off the next piece, of `size` bytes at most, and claims a window where there is none; returns the piece's
   * length, 0 when nothing is left to claim. Pieces end at multiples of the size, so that all but the edges of a run
   * are aligned.
   */
  cut(size: number): number {
    if (this.#from === this.#end && !this.#nextRun()) return 0;
    this.#offset = this.#from;
    this.#from = Math.min(this.#end, this.#from - (this.#from % size) + size);
    return this.#from - this.#offset;
  }

  /** Makes dirty again what was claimed and not cut off. */
  putBack(): void {
    if (this.#from < this.#end) this.#plan.set(this.#from, this.#end - this.#from);
    for (let i = this.#index; i < this.#length; i += 2) {
      this.#plan.set(this.#runs[i], this.#runs[i + 1]);
    }
    this.#from = this.#end;
    this.#index = this.#length;
  }

  #nextRun(): boolean {
    if (this.#index === this.#length) {
      this.#length = 2 * this.#plan.claim(this.#runs, { maxBytes: this.#size });
      this.#index = 0;
      if (this.#length === 0) return false;
    }
    this.#from = this.#runs[this.#index];
    this.#end = this.#from + this.#runs[this.#index + 1];
    this.#index += 2;
    return true;
  }
}
