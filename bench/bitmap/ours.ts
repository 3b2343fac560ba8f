import { Arena, Bitmap, type KernelVariant } from 'lacuna/bitmap';
import type { Contender, Holder } from './contender.js';

const GRANULARITY = 65536;
const PAIRS = 512;

/** Ours, through the public API, in bytes as a user would call it. */
export function ours(variant: KernelVariant): Contender {
  const arena = Arena.create({ variant });
  return {
    name: `ours, ${variant}`,
    make: (granules) =>
      new Ours(new Bitmap({ size: granules * GRANULARITY, granularity: GRANULARITY, arena })),
  };
}

class Ours implements Holder {
  readonly #bitmap: Bitmap;
  readonly #out = new Float64Array(PAIRS * 2);

  constructor(bitmap: Bitmap) {
    this.#bitmap = bitmap;
  }

  set(position: number): void {
    this.#bitmap.set(position * GRANULARITY, GRANULARITY);
  }

  setMany(positions: Float64Array): void {
    this.#bitmap.setMany(offsetsOf(positions));
  }

  reset(position: number): void {
    this.#bitmap.reset(position * GRANULARITY, GRANULARITY);
  }

  get(position: number): boolean {
    return this.#bitmap.get(position * GRANULARITY);
  }

  next(position: number, dirty: boolean): number {
    const offset = position * GRANULARITY;
    const found = dirty ? this.#bitmap.nextDirty(offset) : this.#bitmap.nextZero(offset);
    return found < 0 ? -1 : found / GRANULARITY;
  }

  setAll(): void {
    this.#bitmap.setAll();
  }

  resetAll(): void {
    this.#bitmap.resetAll();
  }

  runs(): number {
    let count = 0;
    for (const _ of this.#bitmap.ranges()) count++;
    return count;
  }

  merge(other: this): void {
    this.#bitmap.merge(other.#bitmap);
  }

  snapshot(): this {
    return new Ours(this.#bitmap.snapshot()) as this;
  }

  claimAll(): number {
    const copy = this.#bitmap.snapshot();
    let windows = 0;
    while (copy.claim(this.#out, { maxBytes: 4096 * GRANULARITY }) !== 0) windows++;
    copy.free();
    return windows;
  }

  digest(): string {
    return this.#bitmap.digest();
  }

  count(): number {
    return this.#bitmap.count;
  }

  /** What is freed when this bitmap goes, measured on a copy that shares nothing. */
  bytes(): number {
    const { arena } = this.#bitmap;
    const before = arena.usedBytes;
    const copy = new Bitmap({ size: this.#bitmap.size, granularity: GRANULARITY, arena });
    for (const { offset, length } of this.#bitmap.ranges()) copy.set(offset, length);
    const bytes = arena.usedBytes - before;
    copy.free();
    return bytes;
  }

  free(): void {
    this.#bitmap.free();
  }
}

const offsets = new WeakMap<Float64Array, Float64Array>();

/** Made once for each array: who sets many granules of a disk has offsets, not positions. */
function offsetsOf(positions: Float64Array): Float64Array {
  const known = offsets.get(positions) ?? positions.map((position) => position * GRANULARITY);
  offsets.set(positions, known);
  return known;
}
