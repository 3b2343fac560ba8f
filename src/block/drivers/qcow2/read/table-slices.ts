import { cutShort, findRun, type L2Table, type Run, RunKind } from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { Image } from './image.js';

/** Who looks up one cluster here and one there reads this much of a table, not all of it. */
const SLICE_BYTES = 4096;
const MOST_SLICES = 1024;

/** Looks up single runs of an image whose mapping nobody changes. */
export class TableSlices {
  readonly #image: Image;
  readonly #sliceBytes: number;
  /** Bytes of the disk that a slice describes. */
  readonly #sliceSpan: number;
  readonly #slices = new Map<number, DataView>();

  constructor(image: Image) {
    const { clusterSize, l2EntryBytes } = image.geometry;
    this.#image = image;
    this.#sliceBytes = Math.min(SLICE_BYTES, clusterSize);
    this.#sliceSpan = (this.#sliceBytes / l2EntryBytes) * clusterSize;
  }

  /** The run at a byte of the disk, which may end early; at `end` at last. */
  async find(offset: number, end: number): Promise<Run> {
    const { tables, geometry, rules } = this.#image;
    const index = Math.floor(offset / geometry.l2Span);
    const start = index * geometry.l2Span;
    const number = Math.floor((offset - start) / this.#sliceSpan);
    const place = tables.tableAt(index);
    const run = { kind: RunKind.unallocated, length: 0, host: 0, hostLength: 0 };
    if (place === 0) return { ...run, length: Math.min(end, start + geometry.l2Span) - offset };
    const slice: L2Table = {
      view: await this.#slice(place + number * this.#sliceBytes),
      offset: place + number * this.#sliceBytes,
      start: start + number * this.#sliceSpan,
    };
    findRun(slice, rules, { from: offset, end: Math.min(end, slice.start + this.#sliceSpan), run });
    this.#image.settle(run);
    return run;
  }

  async #slice(offset: number): Promise<DataView> {
    const known = this.#slices.get(offset);
    if (known !== undefined) return known;
    const { file, name } = this.#image;
    if (offset + this.#sliceBytes > file.end) {
      throw cutShort(name, 'an L2 table', { offset, end: file.end });
    }
    const bytes = new Uint8Array(this.#sliceBytes);
    await file.read(offset, bytes);
    for (const oldest of this.#slices.keys()) {
      if (this.#slices.size < MOST_SLICES) break;
      this.#slices.delete(oldest);
    }
    const view = viewOf(bytes);
    this.#slices.set(offset, view);
    return view;
  }
}
