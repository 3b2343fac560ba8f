import { corrupt, cutShort, type Geometry, readL1Entry } from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { readPadded } from '../io/index.js';

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
  /** Entries that the file has: fewer only where that was allowed. */
  readonly known: number;
  readonly #pages: ReadonlyArray<DataView | undefined>;
  readonly #place: L1Place;
  readonly #geometry: Geometry;
  readonly #image: string;

  private constructor(
    place: L1Place,
    pages: ReadonlyArray<DataView | undefined>,
    geometry: Geometry,
    { image, known }: { image: string; known: number },
  ) {
    this.entries = place.entries;
    this.known = known;
    this.#place = place;
    this.#pages = pages;
    this.#geometry = geometry;
    this.#image = image;
  }

  /**
   * Reads a table. The file must have all of it, as every writer makes it: what is missing may have named anything.
   *
   * @param isCutAllowed reads what is there.
   * @throws LacunaError ERR_QCOW2_CORRUPT
   */
  static async read(
    file: BlockDevice,
    place: L1Place,
    geometry: Geometry,
    isCutAllowed = false,
  ): Promise<L1Table> {
    const { offset, entries } = place;
    const known = Math.min(entries, Math.floor(Math.max(0, file.end - offset) / 8));
    if (known < entries && !isCutAllowed) {
      throw cutShort(file.name, 'the L1 table', { offset, end: file.end });
    }
    const pages: Array<DataView | undefined> = [];
    // Pages behind the end of the file are not looked at: an image may claim to have thousands.
    for (let first = 0; first < known; first += PAGE_ENTRIES) {
      const bytes = new Uint8Array(Math.min(PAGE_ENTRIES, entries - first) * 8);
      await readPadded(file, offset + first * 8, bytes);
      const empty = Buffer.compare(bytes, EMPTY.subarray(0, bytes.length)) === 0;
      pages.push(empty ? undefined : viewOf(bytes));
    }
    return new L1Table(place, pages, geometry, { image: file.name, known });
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
