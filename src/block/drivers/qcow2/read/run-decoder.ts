import { type L2Table, type MappingRules, type Run, RunKind } from '../../../../qcow2/index.js';
import { Arena, L2Decoder } from '../../../../wasm/index.js';

/** Finds runs as `findRun` does, many at a time, for whoever walks all of a table. */
export class RunDecoder {
  readonly #decoder: L2Decoder;
  readonly #clusterSize: number;
  readonly #entries: number;
  #table?: L2Table;
  /** Runs of the batch, the next one of them, and the entry that it begins at. */
  #count = 0;
  #next = 0;
  #entry = 0;

  private constructor({ geometry }: MappingRules) {
    this.#decoder = new L2Decoder(Arena.default, geometry.clusterBits);
    this.#clusterSize = geometry.clusterSize;
    this.#entries = geometry.l2Entries;
  }

  /** Undefined for the images that the kernel knows nothing of. */
  static for(rules: MappingRules): RunDecoder | undefined {
    const known = rules.version === 3 && !rules.dataFile && !rules.geometry.extended;
    return known ? new RunDecoder(rules) : undefined;
  }

  /** Fills `run` with the run at a byte; false where `findRun` must look at it. */
  find(table: L2Table, { from, end, run }: { from: number; end: number; run: Run }): boolean {
    const first = (from - table.start) / this.#clusterSize;
    if (!Number.isInteger(first)) return false;
    if (table !== this.#table) this.#take(table, first);
    else if (this.#next === this.#count || first !== this.#entry) this.#decode(first);
    const at = this.#next * 3;
    const { runs } = this.#decoder;
    const kind = runs[at];
    this.#next++;
    this.#entry = first + runs[at + 2];
    if (kind > RunKind.compressed) return false;
    run.kind = kind;
    run.host = runs[at + 1];
    run.length = Math.min(runs[at + 2] * this.#clusterSize, end - from);
    return true;
  }

  free(): void {
    this.#decoder.free();
  }

  #take(table: L2Table, first: number): void {
    this.#table = table;
    const { buffer, byteOffset, byteLength } = table.view;
    this.#decoder.load(new Uint8Array(buffer, byteOffset, byteLength));
    this.#decode(first);
  }

  #decode(first: number): void {
    this.#count = this.#decoder.decode(first, this.#entries);
    this.#next = 0;
  }
}
