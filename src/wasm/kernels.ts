import { type CompiledModule, engine, type SharedMemory } from './engine.js';

/** A byte offset in an arena. Only `src/wasm` makes and reads them; to others they are opaque. */
export type Pointer = number & { readonly __pointer: unique symbol };

/**
 * What the compiled kernels export; assembly/index.ts says what each does. Results below 0 of
 * functions that otherwise answer 0 or more are one of {@link Outcomes}. Pointers come back signed:
 * `>>> 0` them.
 */
export interface Kernels {
  initArena(): void;
  isArena(): number;
  alloc(bytes: number): Pointer;
  retain(address: Pointer): void;
  release(address: Pointer): void;
  usedBytes(): number;
  isZero(address: number, length: number): number;
  zeroRun(address: number, length: number, step: number): number;
  l2Runs(
    table: Pointer,
    from: number,
    to: number,
    clusterBits: number,
    out: Pointer,
    most: number,
  ): number;
  valueSquares(address: Pointer, length: number, counts: Pointer): number;
  clearSeen(seen: Pointer, bits: number): void;
  repeats(address: Pointer, length: number, seen: Pointer, bits: number): number;
  bitmapCreate(size: number, shift: number): Pointer;
  bitmapAttach(bitmap: Pointer): number;
  bitmapFree(bitmap: Pointer): void;
  bitmapSnapshot(bitmap: Pointer): Pointer;
  bitmapSize(bitmap: Pointer): number;
  bitmapShift(bitmap: Pointer): number;
  bitmapCount(bitmap: Pointer): number;
  bitmapDirtyBytes(bitmap: Pointer): number;
  bitmapSet(bitmap: Pointer, offset: number, length: number): number;
  bitmapReset(bitmap: Pointer, offset: number, length: number): number;
  bitmapFill(bitmap: Pointer, dirty: boolean): number;
  bitmapHasRoom(bitmap: Pointer, count: number): number;
  bitmapSetMany(bitmap: Pointer, offsets: Pointer, count: number): number;
  bitmapSetRanges(bitmap: Pointer, pairs: Pointer, count: number): number;
  bitmapGet(bitmap: Pointer, offset: number): number;
  bitmapFind(bitmap: Pointer, offset: number, end: number, dirty: boolean): number;
  bitmapArea(bitmap: Pointer, offset: number, end: number, max: number, out: Pointer): number;
  bitmapStatus(bitmap: Pointer, offset: number, length: number, out: Pointer): number;
  bitmapRuns(bitmap: Pointer, from: number, end: number, walk: Pointer, pairs: number): number;
  bitmapCountIn(bitmap: Pointer, offset: number, length: number): number;
  bitmapSelect(bitmap: Pointer, rank: number): number;
  bitmapClaim(
    bitmap: Pointer,
    from: number,
    end: number,
    walk: Pointer,
    pairs: number,
    maxBytes: number,
  ): number;
  bitmapCombine(bitmap: Pointer, other: Pointer, operation: number): number;
  bitmapReplace(bitmap: Pointer, other: Pointer, from: number, to: number): number;
  bitmapResize(bitmap: Pointer, size: number): number;
  bitmapReadWords(bitmap: Pointer, from: number, words: number, target: Pointer): number;
  bitmapWriteWords(bitmap: Pointer, from: number, words: number, source: Pointer): number;
}

/**
 * The numbers that the kernels were compiled with, read from the module: there is no second copy.
 */
export interface Layout {
  readonly version: number;
  /** In front of the pairs that a walk writes. */
  readonly walkBytes: number;
  readonly outcomes: Outcomes;
  readonly operations: Operations;
}

/** What a kernel answers instead of a result. */
export interface Outcomes {
  readonly outOfRange: number;
  readonly arenaFull: number;
  readonly mismatch: number;
  readonly corrupt: number;
}

export interface Operations {
  readonly merge: number;
  readonly intersect: number;
  readonly subtract: number;
  readonly xor: number;
}

/** One thread's instance of the kernels. */
export interface Instance {
  readonly kernels: Kernels;
  readonly layout: Layout;
}

/** Instantiates the kernels over a memory, which they leave as it is. */
export function instantiate(module: CompiledModule, memory: SharedMemory): Instance {
  const { exports } = new engine.Instance(module, { env: { memory } });
  const value = (name: string): number => (exports[name] as { value: number }).value;
  const layout: Layout = {
    version: value('LAYOUT_VERSION'),
    walkBytes: value('WALK_BYTES'),
    outcomes: {
      outOfRange: value('OUT_OF_RANGE'),
      arenaFull: value('ARENA_FULL'),
      mismatch: value('MISMATCH'),
      corrupt: value('CORRUPT'),
    },
    operations: {
      merge: value('OP_MERGE'),
      intersect: value('OP_INTERSECT'),
      subtract: value('OP_SUBTRACT'),
      xor: value('OP_XOR'),
    },
  };
  return { kernels: exports as unknown as Kernels, layout };
}
