import {
  allUnits,
  corrupt,
  cutShort,
  type Geometry,
  type Mapped,
  unitsOf,
} from '../../../../qcow2/index.js';
import { alignDown, alignUp } from '../../../../util/index.js';
import type { HostFile, LiveHeader } from '../io/index.js';
import type { Allocator, Run } from './allocator.js';
import type { Mapping } from './mapping.js';

/** What is written with filling around it goes out in one write up to this length. */
const JOINED_BYTES = 256 * 1024;

export interface ClusterWriterParts {
  readonly geometry: Geometry;
  readonly header: LiveHeader;
  readonly mapping: Mapping;
  readonly allocator: Allocator;
  /** The file where guest clusters lie. */
  readonly data: HostFile;
  /** Guest clusters lie in a data file, each at its own offset. */
  readonly hasDataFile: boolean;
  /** Reads guest bytes as they are now; behind the end of the disk they are zero. */
  readonly read: (offset: number, target: Uint8Array) => Promise<void>;
}

/** Guest clusters in a row that are written alike. */
interface Stretch {
  readonly clusters: number;
  /** Where the first one lies; undefined where room must be found. */
  readonly host?: number;
  /** All units that are written hold bytes already: the mapping stays as it is. */
  readonly inPlace: boolean;
}

/**
 * Writes guest bytes into clusters: in place, or into clusters that are found for them, filled up with what the guest
 * saw there before. Bytes are in the file before the mapping says so.
 */
export class ClusterWriter {
  readonly #parts: ClusterWriterParts;
  readonly #all: number;

  constructor(parts: ClusterWriterParts) {
    this.#parts = parts;
    this.#all = allUnits(parts.geometry);
  }

  /**
   * Writes as many of the bytes as can be written in place.
   *
   * @returns how many that were; the rest needs room, and so the clusters for the writer alone.
   */
  async writeInPlace(offset: number, source: Uint8Array): Promise<number> {
    for (let done = 0; done < source.length; ) {
      const piece = this.#piece(offset + done, source.subarray(done));
      const { host, inPlace, clusters } = await this.#stretch(offset + done, piece.length);
      if (host === undefined || !inPlace) return done;
      const within = (offset + done) % this.#parts.geometry.clusterSize;
      const bytes = this.#cut(piece, within, clusters);
      await this.#parts.data.write(host + within, bytes);
      done += bytes.length;
    }
    return source.length;
  }

  /** Writes bytes into clusters that nobody else reads or writes meanwhile. */
  async write(offset: number, source: Uint8Array): Promise<void> {
    for (let done = 0; done < source.length; ) {
      done += await this.#writePiece(
        offset + done,
        this.#piece(offset + done, source.subarray(done)),
      );
    }
  }

  async #writePiece(offset: number, source: Uint8Array): Promise<number> {
    const within = offset % this.#parts.geometry.clusterSize;
    const stretch = await this.#stretch(offset, source.length);
    const bytes = this.#cut(source, within, stretch.clusters);
    if (stretch.host === undefined) return this.#writeNew(offset, bytes, stretch.clusters);
    if (stretch.inPlace) await this.#parts.data.write(stretch.host + within, bytes);
    else await this.#writeInto(offset, bytes, stretch.host);
    return bytes.length;
  }

  /** Writes into clusters that are found now. Returns how many bytes there was room for in a row. */
  async #writeNew(offset: number, source: Uint8Array, clusters: number): Promise<number> {
    const { geometry, mapping, allocator } = this.#parts;
    const { clusterSize } = geometry;
    const within = offset % clusterSize;
    const start = offset - within;
    const run = await this.#findRoom(start, clusters);
    try {
      const bytes = this.#cut(source, within, run.count);
      const mapped = await mapping.lookUp(start, run.count);
      const first = this.#span(
        mapped[0],
        within,
        run.count > 1 ? clusterSize : within + bytes.length,
      );
      const end = within + bytes.length - (run.count - 1) * clusterSize;
      const last = this.#span(mapped[run.count - 1], run.count > 1 ? 0 : within, end);
      const to = (run.count - 1) * clusterSize + last.to;
      await this.#writeFilled({
        offset,
        source: bytes,
        host: run.offset,
        start,
        from: first.from,
        to,
      });
      await mapping.change(start, run.count, (before, index) => {
        const from = index === 0 ? first.from : 0;
        const units = unitsOf(geometry, from, index === run.count - 1 ? last.to : clusterSize);
        return {
          host: run.offset + index * clusterSize,
          copied: true,
          allocated: units,
          zero: (before.zero & ~units & this.#all) >>> 0,
        };
      });
      return bytes.length;
    } catch (error) {
      if (!this.#parts.hasDataFile) await allocator.free([run]);
      throw error;
    }
  }

  /** Writes into a cluster whose host is its own, but does not hold bytes in all units that are written. */
  async #writeInto(offset: number, source: Uint8Array, host: number): Promise<void> {
    const { geometry, mapping } = this.#parts;
    const { clusterSize, subclusterSize } = geometry;
    const within = offset % clusterSize;
    const start = offset - within;
    const end = within + source.length;
    const [before] = await mapping.lookUp(start, 1);
    const has = (at: number) => (before.allocated & unitsOf(geometry, at, at + 1)) !== 0;
    const from = has(within) ? within : alignDown(within, subclusterSize);
    const to = has(end - 1) ? end : alignUp(end, subclusterSize);
    await this.#writeFilled({ offset, source, host, start, from, to });
    const units = unitsOf(geometry, from, to);
    await mapping.change(start, 1, (mapped) => ({
      ...mapped,
      allocated: (mapped.allocated | units) >>> 0,
      zero: (mapped.zero & ~units) >>> 0,
    }));
  }

  /**
   * Which part of a new cluster is written, so that `from` to `to` can be. Whole units; and all of the cluster where
   * the old one holds more, because it is left.
   */
  #span(mapped: Mapped, from: number, to: number): { from: number; to: number } {
    const { clusterSize, subclusterSize } = this.#parts.geometry;
    if (mapped.compressed !== undefined || mapped.allocated !== 0)
      return { from: 0, to: clusterSize };
    return { from: alignDown(from, subclusterSize), to: alignUp(to, subclusterSize) };
  }

  /** Writes bytes, and around them what the guest sees there: from `from` to `to`, counted from `start` on. */
  async #writeFilled(write: {
    readonly offset: number;
    readonly source: Uint8Array;
    readonly host: number;
    readonly start: number;
    readonly from: number;
    readonly to: number;
  }): Promise<void> {
    const { offset, source, host, start, from, to } = write;
    const { data } = this.#parts;
    const head = offset - start - from;
    const tail = to - from - head - source.length;
    if (head === 0 && tail === 0) return data.write(host + from, source);
    if (to - from <= JOINED_BYTES) {
      const joined = new Uint8Array(to - from);
      await this.#fill(start + from, joined.subarray(0, head));
      joined.set(source, head);
      await this.#fill(offset + source.length, joined.subarray(head + source.length));
      return data.write(host + from, joined);
    }
    await this.#copyUp(start + from, host + from, head);
    await data.write(host + from + head, source);
    await this.#copyUp(offset + source.length, host + from + head + source.length, tail);
  }

  async #copyUp(offset: number, host: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length);
    await this.#fill(offset, bytes);
    if (length > 0) await this.#parts.data.write(host, bytes);
  }

  async #fill(offset: number, target: Uint8Array): Promise<void> {
    if (target.length > 0) await this.#parts.read(offset, target);
  }

  async #findRoom(start: number, clusters: number): Promise<Run> {
    // In a data file every cluster has its place.
    if (this.#parts.hasDataFile) return { offset: start, count: clusters };
    return this.#parts.allocator.allocate(clusters);
  }

  /** The longest stretch of clusters that can be written alike, from the one that holds `offset` on. */
  async #stretch(offset: number, length: number): Promise<Stretch> {
    const { geometry, mapping, hasDataFile } = this.#parts;
    const { clusterSize } = geometry;
    const within = offset % clusterSize;
    const count = Math.ceil((within + length) / clusterSize);
    const mapped = await mapping.lookUp(offset - within, count);
    const kindOf = (index: number): Stretch => {
      const { host, copied, allocated } = mapped[index];
      if (host === undefined || !(copied || hasDataFile)) return { clusters: 1, inPlace: false };
      const from = index === 0 ? within : 0;
      const to = Math.min(clusterSize, within + length - index * clusterSize);
      const units = unitsOf(geometry, from, to);
      return { clusters: 1, host, inPlace: (allocated & units) >>> 0 === units };
    };
    const first = kindOf(0);
    let clusters = 1;
    for (; clusters < count; clusters++) {
      const next = kindOf(clusters);
      const host = first.host === undefined ? undefined : first.host + clusters * clusterSize;
      // What fills units of its own clusters does so one by one.
      const alike = next.inPlace === first.inPlace && (first.host === undefined || first.inPlace);
      if (!alike || next.host !== host) break;
    }
    if (first.host !== undefined) this.#checkPlace(first.host, clusters);
    for (let index = 0; index < clusters; index++) {
      this.#checkThere(mapped[index], offset - within + index * clusterSize);
    }
    return { ...first, clusters };
  }

  /**
   * A cluster that holds bytes must be there before some of them are changed: the others would be zeroes then, which
   * nobody could tell from what the disk held.
   */
  #checkThere({ host, allocated }: Mapped, start: number): void {
    if (host === undefined || allocated === 0) return;
    const { data, geometry, header } = this.#parts;
    const units = geometry.extended ? 32 - Math.clz32(allocated) : 1;
    const to = Math.min(units * geometry.subclusterSize, header.current.size - start);
    if (host + to <= data.end) return;
    throw cutShort(data.name, 'a cluster of the disk', { offset: host, end: data.end });
  }

  /** Metadata is not guest data, whatever a damaged table says. */
  #checkPlace(host: number, clusters: number): void {
    const { data, geometry, hasDataFile, header, allocator } = this.#parts;
    if (hasDataFile) return;
    const end = host + clusters * geometry.clusterSize;
    const found = header.metadataIn(host, end);
    if (found !== undefined) throw corrupt(data.name, `${found} in a cluster of the disk`, host);
    if (end <= allocator.end) return;
    throw corrupt(data.name, 'a cluster of the disk that has no refcount', host);
  }

  /** The part of a request that one L2 table maps. */
  #piece(offset: number, source: Uint8Array): Uint8Array {
    const { l2Span } = this.#parts.geometry;
    return source.subarray(0, l2Span - (offset % l2Span));
  }

  /** The part of a piece that lies in its first clusters. */
  #cut(source: Uint8Array, within: number, clusters: number): Uint8Array {
    return source.subarray(0, clusters * this.#parts.geometry.clusterSize - within);
  }
}
