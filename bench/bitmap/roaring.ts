import type { Contender, Holder } from './contender.js';

/** What both packages of Roaring bitmaps have, and this bench uses. */
interface Roaring {
  readonly size: number;
  add(value: number): void;
  addMany(values: Uint32Array): void;
  delete(value: number): boolean;
  has(value: number): boolean;
  rank(value: number): number;
  select(rank: number): number | undefined;
  addRange(from: number, to: number): void;
  flipRange(from: number, to: number): void;
  clear(): void;
  orInPlace(other: Roaring): void;
  clone(): Roaring;
  maximum(): number | undefined;
  optimize?(): boolean;
  runOptimize?(): boolean;
  getSerializationSizeInBytes(format: string): number;
  toUint32Array(): Uint32Array;
  dispose?(): void;
}

/** Loads a package; null when it is not installed. */
export async function roaring(name: 'roaring' | 'roaring-wasm'): Promise<Contender | null> {
  try {
    const module = await import(name);
    await module.roaringLibraryInitialize?.();
    const { RoaringBitmap32 } = module.default ?? module;
    return {
      name,
      make: (granules) => (granules > 2 ** 32 ? null : new Held(new RoaringBitmap32(), granules)),
    };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND') return null;
    throw error;
  }
}

class Held implements Holder {
  readonly findsNoClean = true;
  readonly #bitmap: Roaring;
  readonly #granules: number;

  constructor(bitmap: Roaring, granules: number) {
    this.#bitmap = bitmap;
    this.#granules = granules;
  }

  set(position: number): void {
    this.#bitmap.add(position);
  }

  setMany(positions: Float64Array): void {
    this.#bitmap.addMany(Uint32Array.from(positions));
  }

  reset(position: number): void {
    this.#bitmap.delete(position);
  }

  get(position: number): boolean {
    return this.#bitmap.has(position);
  }

  /** By rank: it has no search of its own for the next value, and none for one that is missing. */
  next(position: number): number {
    const below = position === 0 ? 0 : this.#bitmap.rank(position - 1);
    return this.#bitmap.select(below) ?? -1;
  }

  setAll(): void {
    this.#bitmap.addRange(0, this.#granules);
  }

  resetAll(): void {
    this.#bitmap.clear();
  }

  runs(): number {
    let count = 0;
    let last = -2;
    for (const position of this.#bitmap.toUint32Array()) {
      if (position !== last + 1) count++;
      last = position;
    }
    return count;
  }

  merge(other: this): void {
    this.#bitmap.orInPlace(other.#bitmap);
  }

  snapshot(): this {
    return new Held(this.#bitmap.clone(), this.#granules) as this;
  }

  count(): number {
    return this.#bitmap.size;
  }

  bytes(): number {
    return this.#bitmap.getSerializationSizeInBytes('portable');
  }

  free(): void {
    this.#bitmap.dispose?.();
  }
}
