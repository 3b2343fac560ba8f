import { LacunaError, throwIfAborted } from '../../../../errors/index.js';
import {
  allUnits,
  type Geometry,
  type Mapped,
  UNMAPPED,
  unitsOf,
} from '../../../../qcow2/index.js';
import { alignDown, alignUp, Turns } from '../../../../util/index.js';
import type { HostFile } from '../io/index.js';
import type { ClusterWriter } from './cluster-writer.js';
import type { Mapping } from './mapping.js';

/** Zeroes are written where an entry cannot say them, in pieces of this length. */
const PIECE_BYTES = 1024 * 1024;

export interface ClusterZeroerParts {
  readonly image: string;
  readonly version: 2 | 3;
  readonly geometry: Geometry;
  readonly mapping: Mapping;
  readonly writer: ClusterWriter;
  /** Bytes of the image below, behind which nothing shines through; 0 where there is none. */
  readonly backingSize: number;
  readonly dataFile?: HostFile;
  /** The data file is a raw image of the disk: zeroes must be in it as well. */
  readonly rawDataFile: boolean;
}

/** Makes guest clusters read as zero, or forgets them. All calls have their clusters for themselves. */
export class ClusterZeroer {
  readonly #parts: ClusterZeroerParts;
  readonly #all: number;

  constructor(parts: ClusterZeroerParts) {
    this.#parts = parts;
    this.#all = allUnits(parts.geometry);
  }

  /** Whether zero requests work at all: version 2 cannot say "zero" where something lies below. */
  get canZero(): boolean {
    return this.#parts.version > 2 || this.#parts.backingSize === 0;
  }

  /**
   * Makes a range read as zero.
   *
   * @param end of the disk, or of the range: a cluster that the disk ends in counts as whole.
   * @param unmap whether clusters may be given up.
   * @throws LacunaError ERR_DEVICE_UNSUPPORTED, with nothing changed, where an entry cannot say it.
   */
  async zero(offset: number, end: number, diskEnd: number, unmap: boolean): Promise<void> {
    const { version, image, rawDataFile, dataFile, geometry } = this.#parts;
    if (version === 2 && (!unmap || !this.canZero)) {
      const message = `${image} is of version 2, which cannot say that clusters read as zero`;
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: image });
    }
    if (rawDataFile) return dataFile!.zero(offset, end - offset, unmap);
    const unit = geometry.subclusterSize;
    const first = alignUp(offset, unit);
    const last = end === diskEnd ? alignUp(end, unit) : alignDown(end, unit);
    if (first > last) return this.#writeZeroes(offset, end);
    await this.#writeZeroes(offset, Math.min(first, end));
    if (first < last) await this.#zeroUnits(first, last, unmap);
    await this.#writeZeroes(last, end);
  }

  /** Makes a range behind the end of the disk read as zero, whatever shines through there. */
  addZeroes(offset: number, end: number): Promise<void> {
    if (this.#parts.rawDataFile) return this.#addRaw(offset, end);
    return this.canZero ? this.zero(offset, end, end, true) : this.#writeZeroes(offset, end);
  }

  /**
   * Says of no cluster of an L2 table that it reads as zero: it is unmapped, or gets zeroes where something shines through.
   *
   * @param start of what the table describes.
   */
  async spell(start: number, diskEnd: number, signal?: AbortSignal): Promise<void> {
    const { mapping, geometry, writer } = this.#parts;
    const { clusterSize, l2Entries } = geometry;
    const mapped = await mapping.lookUp(start, l2Entries);
    const zeroes = new Uint8Array(clusterSize);
    const turns = new Turns();
    for (let i = 0; i < mapped.length; i++) {
      if (mapped[i].zero === 0) continue;
      await turns.next();
      throwIfAborted(signal);
      const offset = start + i * clusterSize;
      if (offset < diskEnd && this.#shines(offset)) await writer.write(offset, zeroes);
      else await mapping.change(offset, 1, () => UNMAPPED);
    }
  }

  /** In a raw data file zeroes are mapped, so that what others write into that file is seen. */
  async #addRaw(offset: number, end: number): Promise<void> {
    const { dataFile, geometry, mapping } = this.#parts;
    const { clusterSize, l2Span } = geometry;
    await dataFile!.zero(offset, end - offset, true);
    // The file is as long as the disk.
    await dataFile!.write(end - 1, new Uint8Array(1));
    for (let at = alignDown(offset, clusterSize); at < end; ) {
      const start = at;
      const stop = Math.min(alignUp(end, clusterSize), at - (at % l2Span) + l2Span);
      await mapping.change(start, (stop - start) / clusterSize, (before, index) =>
        before.host === undefined
          ? { host: start + index * clusterSize, copied: true, allocated: this.#all, zero: 0 }
          : before,
      );
      at = stop;
    }
  }

  /** Forgets whole clusters. They read as zero, or as before where an entry cannot say that. */
  async discard(offset: number, end: number, diskEnd: number): Promise<void> {
    const { geometry, dataFile, rawDataFile, version } = this.#parts;
    const { clusterSize } = geometry;
    const first = alignUp(offset, clusterSize);
    const last = end === diskEnd ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
    if (first >= last) return;
    if (dataFile !== undefined) await dataFile.discard(first, Math.min(end, last) - first);
    if (rawDataFile || (version === 2 && !this.canZero)) return;
    await this.#zeroUnits(first, last, true);
  }

  /** Zeroes whole units by what L2 entries say. */
  async #zeroUnits(start: number, end: number, unmap: boolean): Promise<void> {
    const { mapping, geometry } = this.#parts;
    const { l2Span, clusterSize } = geometry;
    for (let at = start; at < end; ) {
      const stop = Math.min(end, at - (at % l2Span) + l2Span);
      const { l1Index } = mapping.placeOf(at);
      if (!mapping.isEmpty(l1Index) || this.#shines(at)) {
        for (let from = at; from < stop; ) {
          // The parts of clusters at both ends, and all whole clusters between them at once.
          const isWhole = from % clusterSize === 0 && stop - from >= clusterSize;
          const to = isWhole
            ? alignDown(stop, clusterSize)
            : Math.min(stop, alignUp(from + 1, clusterSize));
          if (isWhole) await this.#zeroClusters(from, (to - from) / clusterSize, unmap);
          else await this.#zeroSubclusters(from, to, unmap);
          from = to;
        }
      }
      at = stop;
    }
  }

  async #zeroClusters(offset: number, count: number, unmap: boolean): Promise<void> {
    const { mapping, geometry, version, backingSize } = this.#parts;
    if (version > 2 && mapping.isEmpty(mapping.placeOf(offset).l1Index)) {
      // Only what shines through must be hidden.
      const shining = Math.min(count, Math.ceil((backingSize - offset) / geometry.clusterSize));
      if (shining > 0) await mapping.fill(offset, shining, { ...UNMAPPED, zero: this.#all });
      return;
    }
    const mapped = await mapping.lookUp(offset, count);
    // Entries that need not change must not make a table, nor copy one.
    let first = 0;
    let end = count;
    const next = mapped.map((before, i) => {
      return this.#zeroed(before, offset + i * geometry.clusterSize, unmap);
    });
    while (first < end && next[first] === mapped[first]) first++;
    while (end > first && next[end - 1] === mapped[end - 1]) end--;
    if (first === end) return;
    const start = offset + first * geometry.clusterSize;
    await mapping.change(start, end - first, (before, i) =>
      next[first + i] === mapped[first + i] ? before : next[first + i],
    );
  }

  /** How a whole cluster is mapped when it reads as zero; the very same where it does so already. */
  #zeroed(before: Mapped, offset: number, unmap: boolean): Mapped {
    const { version, dataFile } = this.#parts;
    const { host, copied, compressed, allocated } = before;
    const shines = this.#shines(offset);
    const nothing = host === undefined && compressed === undefined;
    const readsZero = !shines
      ? allocated === 0 && compressed === undefined
      : before.zero === this.#all;
    if (readsZero && (nothing || !unmap)) return before;
    const keeps =
      host !== undefined &&
      (!unmap || dataFile !== undefined) &&
      (copied || dataFile !== undefined);
    if (keeps) return { host, copied, allocated: 0, zero: this.#all };
    return shines && version > 2 ? { ...UNMAPPED, zero: this.#all } : UNMAPPED;
  }

  async #zeroSubclusters(offset: number, end: number, unmap: boolean): Promise<void> {
    const { mapping, geometry, dataFile } = this.#parts;
    const { clusterSize } = geometry;
    const within = offset % clusterSize;
    const [before] = await mapping.lookUp(offset - within, 1);
    if (before.compressed !== undefined) return this.#writeZeroes(offset, end);
    const units = unitsOf(geometry, within, within + end - offset);
    if ((before.zero & units) >>> 0 === units) return;
    const allocated = (before.allocated & ~units) >>> 0;
    const zero = (before.zero | units) >>> 0;
    const keeps = allocated !== 0 || !unmap || dataFile !== undefined;
    const after = keeps ? { ...before, allocated, zero } : { ...UNMAPPED, zero };
    await mapping.change(offset - within, 1, () => after);
  }

  /** Writes zeroes over a range, where it does not read as zero already. */
  async #writeZeroes(offset: number, end: number): Promise<void> {
    const { mapping, geometry, writer } = this.#parts;
    for (let at = offset; at < end; ) {
      const within = at % geometry.clusterSize;
      const to = Math.min(end, at - within + geometry.clusterSize, at + PIECE_BYTES);
      const [mapped] = await mapping.lookUp(at - within, 1);
      const units = unitsOf(geometry, within, within + to - at);
      const needed =
        units & ~mapped.zero & (this.#shines(at - within) ? this.#all : mapped.allocated);
      if (mapped.compressed !== undefined || needed !== 0) {
        await writer.write(at, new Uint8Array(to - at));
      }
      at = to;
    }
  }

  /** Whether the image below can be seen through a cluster that is not mapped. */
  #shines(offset: number): boolean {
    return offset < this.#parts.backingSize;
  }
}
