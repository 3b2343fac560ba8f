import { corrupt, type Geometry, readL1Entry, viewOf } from '../../qcow2/index.js';
import type { Device } from '../device.js';
import { readPadded } from './read-padded.js';

const PAGE_BYTES = 64 * 1024;
const PAGE_ENTRIES = PAGE_BYTES / 8;
const EMPTY = new Uint8Array(PAGE_BYTES);

/** Where an L1 table lies: the active one, or that of a snapshot. */
export interface L1Place {
  readonly offset: number;
  /** Entries. */
  readonly entries: number;
}

/**
 * An L1 table in memory, in pages: those that are empty take none and are skipped whole, so that a disk of many
 * terabytes with little on it costs as much as a small one.
 */
export class L1Table {
  readonly entries: number;
  readonly #pages: ReadonlyArray<DataView | undefined>;
  readonly #place: L1Place;
  readonly #geometry: Geometry;
  readonly #image: string;

  private constructor(
    place: L1Place,
    pages: ReadonlyArray<DataView | undefined>,
    geometry: Geometry,
    image: string,
  ) {
    this.entries = place.entries;
    this.#place = place;
    this.#pages = pages;
    this.#geometry = geometry;
    this.#image = image;
  }

  /**
   * Reads a table. QEMU makes files that end inside theirs, and what is missing is empty; but none that
   * ends a cluster before it begins.
   */
  static async read(file: Device, place: L1Place, geometry: Geometry): Promise<L1Table> {
    const { offset, entries } = place;
    if (entries > 0 && offset >= file.size + geometry.clusterSize) {
      throw corrupt(file.name, `the L1 table at ${offset}, behind the end of the file`, 40);
    }
    const pages: Array<DataView | undefined> = [];
    // Pages behind the end of the file are not looked at: an image may claim to have thousands.
    const there = Math.min(entries, Math.ceil(Math.max(0, file.size - offset) / 8));
    for (let first = 0; first < there; first += PAGE_ENTRIES) {
      const bytes = new Uint8Array(Math.min(PAGE_ENTRIES, entries - first) * 8);
      await readPadded(file, offset + first * 8, bytes);
      const empty = Buffer.compare(bytes, EMPTY.subarray(0, bytes.length)) === 0;
      pages.push(empty ? undefined : viewOf(bytes));
    }
    return new L1Table(place, pages, geometry, file.name);
  }

  /** Where the L2 table of an entry is; 0 where there is none. */
  tableAt(index: number): number {
    if (index >= this.entries) return 0;
    const page = this.#pages[Math.floor(index / PAGE_ENTRIES)];
    if (page === undefined) return 0;
    const { offset } = readL1Entry(page, (index % PAGE_ENTRIES) * 8);
    const { clusterSize } = this.#geometry;
    if (offset % clusterSize === 0 && Number.isSafeInteger(offset) && !this.#overlaps(offset)) {
      return offset;
    }
    const found = `L1 entry ${index} says an L2 table is at ${offset}, where none can be`;
    throw corrupt(this.#image, found, this.#place.offset + index * 8);
  }

  /** The first entry from `index` on that may have an L2 table; `end` where there is none before it. */
  nextUsed(index: number, end: number): number {
    const stop = Math.min(end, this.entries);
    for (let i = index; i < stop; ) {
      const page = Math.floor(i / PAGE_ENTRIES);
      if (page >= this.#pages.length) return end;
      if (this.#pages[page] === undefined) i = (page + 1) * PAGE_ENTRIES;
      else if (this.tableAt(i) !== 0) return i;
      else i++;
    }
    return end;
  }

  /** Whether an L2 table there would lie in this table. */
  #overlaps(offset: number): boolean {
    const { offset: start, entries } = this.#place;
    return (
      offset !== 0 && offset < start + entries * 8 && offset + this.#geometry.clusterSize > start
    );
  }
}
