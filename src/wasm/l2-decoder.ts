import type { Arena } from './arena.js';
import type { ArenaBlock } from './block.js';

/** Runs that are decoded at once. */
const MOST_RUNS = 512;
const RUN_NUMBERS = 3;

/** Decodes L2 tables of qcow2 images into runs, in batches; see assembly/qcow2.ts. */
export class L2Decoder {
  /** Runs of the last batch, each as kind, host offset and clusters. */
  readonly runs: Float64Array;
  readonly #arena: Arena;
  readonly #table: ArenaBlock;
  readonly #out: ArenaBlock;
  readonly #clusterBits: number;

  /** @throws LacunaError ERR_ARENA_FULL. */
  constructor(arena: Arena, clusterBits: number) {
    this.#arena = arena;
    this.#clusterBits = clusterBits;
    this.#table = arena.allocate(2 ** clusterBits);
    this.#out = arena.allocate(MOST_RUNS * RUN_NUMBERS * 8);
    const { buffer, byteOffset } = this.#out.bytes;
    this.runs = new Float64Array(buffer, byteOffset, MOST_RUNS * RUN_NUMBERS);
  }

  /** Takes a table: a cluster of bytes. */
  load(table: Uint8Array): void {
    this.#table.bytes.set(table);
  }

  /** Decodes entries of the table into `runs`; how many runs there are, fewer than there could be after the most. */
  decode(from: number, to: number): number {
    const table = this.#table.addressOf(0, to * 8);
    const out = this.#out.addressOf(0, this.#out.length);
    const { kernels } = this.#arena.instance;
    return kernels.l2Runs(table, from, to, this.#clusterBits, out, MOST_RUNS);
  }

  free(): void {
    this.#table.free();
    this.#out.free();
  }
}
