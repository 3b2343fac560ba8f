import { findRun, type L2Table, type Run, RunKind } from '../../../../qcow2/index.js';
import type { Image } from './image.js';
import type { RunDecoder } from './run-decoder.js';

/**
 * Walks the runs of an image between two bytes of its disk. Nothing is made for a run: this object is the run, until
 * it is asked for the next one. Entries of the L1 table without an L2 table are passed all at once.
 */
export class RunWalk implements Run {
  kind: number = RunKind.unallocated;
  /** First byte of the run, in the disk. */
  offset: number;
  length = 0;
  host = 0;
  hostLength = 0;
  /** The file does not have it, and it reads as zero because that was asked for. */
  missing = false;
  /** Tables that were entered. */
  tables = 0;
  /** Finds many runs at a time, for a walk that is long; of compressed clusters it does not tell the length. */
  decoder?: RunDecoder;
  readonly #image: Image;
  readonly #end: number;
  #index = -1;
  #table?: L2Table;
  /** First byte of the disk that the table would describe if the file had all of it. */
  #known = 0;

  constructor(image: Image, offset: number, end: number) {
    this.#image = image;
    this.offset = offset;
    this.#end = end;
  }

  /** Goes to the next run, at once where its table is in memory; false behind the last one. */
  next(): boolean | Promise<boolean> {
    this.offset += this.length;
    this.length = 0;
    this.missing = false;
    if (this.offset >= this.#end) return false;
    const { tables, geometry } = this.#image;
    const index = Math.floor(this.offset / geometry.l2Span);
    if (index === this.#index) return this.#find();
    const { knownTables } = this.#image;
    if (index >= knownTables) return this.#miss(this.#end);
    const place = tables.tableAt(index);
    if (place === 0) {
      const end = Math.min(knownTables, Math.ceil(this.#end / geometry.l2Span));
      const used = tables.nextUsed(index + 1, end);
      this.kind = RunKind.unallocated;
      this.length = Math.min(this.#end, used * geometry.l2Span) - this.offset;
      return true;
    }
    const view = tables.l2(index, place);
    if (!(view instanceof Promise)) return this.#enter(index, place, view);
    return view.then((loaded) => this.#enter(index, place, loaded));
  }

  #enter(index: number, offset: number, view: DataView): boolean {
    this.tables++;
    this.#index = index;
    const { clusterSize, l2EntryBytes, l2Span } = this.#image.geometry;
    const start = index * l2Span;
    const known = this.#image.rescue ? this.#image.knownBytes(offset, clusterSize) : clusterSize;
    this.#table = { view, offset, start };
    this.#known = start + Math.floor(known / l2EntryBytes) * clusterSize;
    return this.#find();
  }

  #find(): boolean {
    const table = this.#table as L2Table;
    if (this.offset >= this.#known) return this.#miss(table.start + this.#image.geometry.l2Span);
    const search = { from: this.offset, end: Math.min(this.#end, this.#known), run: this };
    if (this.decoder?.find(table, search) !== true) findRun(table, this.#image.rules, search);
    this.missing = !this.#image.settle(this);
    return true;
  }

  /** Takes what no entry is left of as missing. */
  #miss(end: number): boolean {
    this.kind = RunKind.zero;
    this.length = Math.min(this.#end, end) - this.offset;
    this.missing = true;
    return true;
  }
}
