import { createHash } from 'node:crypto';

export type Operation = 'merge' | 'subtract' | 'intersect' | 'xor';

const OPERATIONS: Record<Operation, (a: number, b: number) => number> = {
  merge: (a, b) => a | b,
  subtract: (a, b) => a & (b ^ 1),
  intersect: (a, b) => a & b,
  xor: (a, b) => a ^ b,
};

/**
 * What a bitmap must do, in the plainest way: one byte for each granule, and no thought for speed.
 */
export class Model {
  size: number;
  bits: Uint8Array;

  constructor(
    size: number,
    readonly granularity: number,
  ) {
    this.size = size;
    this.bits = new Uint8Array(Math.ceil(size / granularity));
  }

  get count(): number {
    return this.bits.reduce((sum, bit) => sum + bit, 0);
  }

  get dirtyBytes(): number {
    return this.countIn(0, this.size);
  }

  set(offset: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((offset + length - 1) / this.granularity);
    this.bits.fill(1, Math.floor(offset / this.granularity), last + 1);
  }

  reset(offset: number, length: number): void {
    const end = offset + length;
    const to = end === this.size ? this.bits.length : Math.floor(end / this.granularity);
    const from = Math.ceil(offset / this.granularity);
    if (length > 0 && from < to) this.bits.fill(0, from, to);
  }

  get(offset: number): boolean {
    return this.bits[Math.floor(offset / this.granularity)] === 1;
  }

  next(offset: number, end: number, dirty: boolean): number {
    const stop = Math.min(end, this.size);
    for (let at = offset; at < stop; at = this.#after(at)) if (this.get(at) === dirty) return at;
    return -1;
  }

  runs(from = 0, end = this.size): number[] {
    const result: number[] = [];
    const stop = Math.min(end, this.size);
    for (let at = this.next(from, stop, true); at >= 0; ) {
      const clean = this.next(at, stop, false);
      result.push(at, (clean < 0 ? stop : clean) - at);
      at = clean < 0 ? -1 : this.next(clean, stop, true);
    }
    return result;
  }

  countIn(offset: number, length: number): number {
    let sum = 0;
    for (let at = offset; at < offset + length; at = this.#after(at)) {
      if (this.get(at)) sum += Math.min(this.#after(at), offset + length) - at;
    }
    return sum;
  }

  /** The exact result, byte for byte, rounded outward to the granules of this model. */
  combine(other: Model, operation: Operation): void {
    const unit = Math.min(this.granularity, other.granularity);
    const result = new Uint8Array(this.bits.length);
    for (let at = 0; at < this.size; at += unit) {
      const bit = OPERATIONS[operation](Number(this.get(at)), Number(other.get(at)));
      result[Math.floor(at / this.granularity)] |= bit;
    }
    this.bits = result;
  }

  copy(): Model {
    const copy = new Model(this.size, this.granularity);
    copy.bits.set(this.bits);
    return copy;
  }

  resize(size: number): void {
    const bits = new Uint8Array(Math.ceil(size / this.granularity));
    bits.set(this.bits.subarray(0, bits.length));
    this.size = size;
    this.bits = bits;
  }

  serialize(): Uint8Array {
    const bytes = new Uint8Array(Math.ceil(this.bits.length / 64) * 8);
    this.bits.forEach((bit, i) => {
      bytes[i >>> 3] |= bit << (i & 7);
    });
    return bytes;
  }

  digest(): string {
    return createHash('sha256').update(this.serialize()).digest('hex');
  }

  claim(pairs: number, maxBytes: number, from: number, end: number): number[] {
    const first = Math.ceil(from / this.granularity);
    const last = end >= this.size ? this.bits.length : Math.min(Math.floor(end / this.granularity));
    let budget = Math.max(1, Math.floor(maxBytes / this.granularity));
    const taken: number[] = [];
    for (let i = first; i < last && budget > 0; i++) {
      if (this.bits[i] === 0) continue;
      const joins = taken.at(-1) === i;
      if (!joins && taken.length === pairs * 2) break;
      if (joins) taken[taken.length - 1]++;
      else taken.push(i, i + 1);
      this.bits[i] = 0;
      budget--;
    }
    return this.#toBytes(taken);
  }

  #toBytes(edges: number[]): number[] {
    return edges.map((edge, i) =>
      i % 2 === 0
        ? edge * this.granularity
        : Math.min(edge * this.granularity, this.size) - edges[i - 1] * this.granularity,
    );
  }

  #after(at: number): number {
    return (Math.floor(at / this.granularity) + 1) * this.granularity;
  }
}
