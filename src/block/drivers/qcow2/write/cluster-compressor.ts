import { type Geometry, type Mapped, UNMAPPED } from '../../../../qcow2/index.js';
import { alignUp } from '../../../../util/index.js';
import type { HostFile } from '../io/index.js';
import type { Allocator } from './allocator.js';
import type { ClusterWriter } from './cluster-writer.js';
import type { ClusterZeroer } from './cluster-zeroer.js';
import type { Compress } from './compress.js';
import type { Mapping } from './mapping.js';

export interface ClusterCompressorParts {
  readonly geometry: Geometry;
  readonly mapping: Mapping;
  readonly allocator: Allocator;
  readonly file: HostFile;
  readonly compress: Compress;
  /** For clusters that have a place already, or do not shrink. */
  readonly writer: ClusterWriter;
  readonly zeroer: ClusterZeroer;
}

/** What becomes of a cluster. */
type Fate = 'plain' | 'zero' | Uint8Array;

/** Stores clusters compressed, packed one behind the other. All calls have their clusters for themselves. */
export class ClusterCompressor {
  readonly #parts: ClusterCompressorParts;
  /** Never changed. */
  readonly #zeroes: Buffer;

  constructor(parts: ClusterCompressorParts) {
    this.#parts = parts;
    this.#zeroes = Buffer.alloc(parts.geometry.clusterSize);
  }

  /**
   * Writes whole clusters; the last one may be cut off by the end of the disk.
   *
   * @param diskEnd bytes of the disk.
   */
  async write(offset: number, source: Uint8Array, diskEnd: number): Promise<void> {
    const { l2Span } = this.#parts.geometry;
    for (let done = 0; done < source.length; ) {
      const at = offset + done;
      const piece = source.subarray(done, done + l2Span - (at % l2Span));
      await this.#writePiece(at, piece, diskEnd);
      done += piece.length;
    }
  }

  /** Fills the sector that the last compressed cluster ends in, so that the file ends with a whole one. */
  async end(): Promise<void> {
    const { allocator, file } = this.#parts;
    const gap = await allocator.endPacked(file.unit);
    if (gap !== undefined) await file.write(gap.from, new Uint8Array(gap.to - gap.from));
  }

  async #writePiece(offset: number, source: Uint8Array, diskEnd: number): Promise<void> {
    const { geometry, mapping, writer, zeroer } = this.#parts;
    const { clusterSize } = geometry;
    const count = Math.ceil(source.length / clusterSize);
    const mapped = await mapping.lookUp(offset, count);
    const clusters = mapped.map((_, i) => source.subarray(i * clusterSize, (i + 1) * clusterSize));
    const fates = await Promise.all(clusters.map((bytes, i) => this.#fateOf(bytes, mapped[i])));
    await this.#store(offset, fates);
    for (let i = 0; i < count; ) {
      const fate = fates[i];
      const first = i;
      while (i < count && fates[i] === fate) i++;
      const bytes = source.subarray(first * clusterSize, i * clusterSize);
      const at = offset + first * clusterSize;
      if (fate === 'plain') await writer.write(at, bytes);
      if (fate === 'zero') await zeroer.zero(at, at + bytes.length, diskEnd, true);
    }
  }

  async #fateOf(bytes: Uint8Array, { host, compressed }: Mapped): Promise<Fate> {
    if (host !== undefined || compressed !== undefined) return 'plain';
    const { geometry, zeroer, compress } = this.#parts;
    if (zeroer.canZero && this.#zeroes.compare(bytes, 0, bytes.length, 0, bytes.length) === 0) {
      return 'zero';
    }
    return (await compress(padded(bytes, geometry.clusterSize))) ?? 'plain';
  }

  /** Stores all that shrank: bytes first, then how they are mapped. */
  async #store(offset: number, fates: readonly Fate[]): Promise<void> {
    const { mapping, allocator } = this.#parts;
    const packed = fates.filter((fate): fate is Uint8Array => typeof fate !== 'string');
    if (packed.length === 0) return;
    const offsets = await allocator.pack(packed.map(({ length }) => length));
    try {
      await this.#writePacked(packed, offsets);
      let next = 0;
      await mapping.change(offset, fates.length, (before, i) => {
        if (typeof fates[i] === 'string') return before;
        const compressed = { offset: offsets[next], length: packed[next].length };
        next++;
        return { ...UNMAPPED, compressed };
      });
    } catch (error) {
      await allocator.free(packed.map((bytes, i) => this.#clustersOf(offsets[i], bytes.length)));
      throw error;
    }
  }

  /** One write for all that lie one behind the other. */
  async #writePacked(packed: readonly Uint8Array[], offsets: readonly number[]): Promise<void> {
    for (let i = 0; i < packed.length; ) {
      const first = i;
      let end = offsets[i];
      for (; i < packed.length && offsets[i] === end; i++) end += packed[i].length;
      await this.#parts.file.write(offsets[first], Buffer.concat(packed.slice(first, i)));
    }
  }

  #clustersOf(offset: number, length: number) {
    const { clusterSize } = this.#parts.geometry;
    const start = offset - (offset % clusterSize);
    return { offset: start, count: (alignUp(offset + length, clusterSize) - start) / clusterSize };
  }
}

/** Behind the end of the disk all is zero. */
function padded(bytes: Uint8Array, clusterSize: number): Uint8Array {
  if (bytes.length === clusterSize) return bytes;
  const cluster = new Uint8Array(clusterSize);
  cluster.set(bytes);
  return cluster;
}
