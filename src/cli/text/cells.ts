/**
 * A disk as a row of cells, each of which knows how many of its bytes are of which kind. All sums are
 * whole numbers of bytes, so they stay exact for a disk of any size.
 */
export class Cells {
  /** Bytes of the disk. */
  readonly size: number;
  /** Cells in the row; never more than the disk has bytes. */
  readonly count: number;
  readonly kinds: number;
  /** First byte behind each cell. */
  readonly #ends: Float64Array;
  /** Bytes by cell and kind. */
  readonly #bytes: Float64Array;
  readonly #totals: Float64Array;

  constructor(options: { size: number; count: number; kinds: number }) {
    this.size = options.size;
    this.count = Math.min(options.count, options.size);
    this.kinds = options.kinds;
    this.#ends = Float64Array.from({ length: this.count }, (_, i) => this.#cut(i + 1));
    this.#bytes = new Float64Array(this.count * this.kinds);
    this.#totals = new Float64Array(this.kinds);
  }

  /** Counts a range of one kind; every byte of the disk is to be added once. */
  add(offset: number, length: number, kind: number): void {
    if (length === 0) return;
    this.#totals[kind] += length;
    const end = offset + length;
    for (let at = offset, cell = this.#cellAt(offset); at < end; cell++) {
      const stop = Math.min(end, this.#ends[cell]);
      this.#bytes[cell * this.kinds + kind] += stop - at;
      at = stop;
    }
  }

  /** Bytes of one kind in one cell. */
  bytesAt(cell: number, kind: number): number {
    return this.#bytes[cell * this.kinds + kind];
  }

  /** Bytes of one cell. */
  sizeOf(cell: number): number {
    return this.#ends[cell] - (cell === 0 ? 0 : this.#ends[cell - 1]);
  }

  /** Bytes of one kind on the whole disk. */
  totalOf(kind: number): number {
    return this.#totals[kind];
  }

  /** Where cell `index` begins. The product exceeds what a number holds exactly. */
  #cut(index: number): number {
    return Number((BigInt(this.size) * BigInt(index)) / BigInt(this.count));
  }

  /** The cell of a byte: a guess by division, put right by the cuts themselves. */
  #cellAt(offset: number): number {
    let cell = Math.min(this.count - 1, Math.floor((offset / this.size) * this.count));
    while (cell > 0 && offset < this.#ends[cell - 1]) cell--;
    while (offset >= this.#ends[cell]) cell++;
    return cell;
  }
}
