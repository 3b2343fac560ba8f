import { throwIfAborted } from '../../../../errors/index.js';
import { allUnits, type Geometry, type Mapped } from '../../../../qcow2/index.js';
import { alignUp, Turns } from '../../../../util/index.js';
import type { Growth, Reserved } from '../in-place/index.js';
import type { HostFile } from '../io/index.js';
import type { Allocator, Run } from './allocator.js';
import type { Mapping } from './mapping.js';

export interface PreallocatorParts {
  readonly geometry: Geometry;
  readonly mapping: Mapping;
  readonly allocator: Allocator;
  /** Where guest clusters lie. */
  readonly data: HostFile;
  /** They lie in a file of their own, each at its place of the disk. */
  readonly hasDataFile: boolean;
}

/** How clusters are mapped; see {@link Growth}. */
type Reserving = Pick<Growth, 'signal'> & { readonly reserved: Reserved };

const PIECE_BYTES = 1024 * 1024;

/** Maps clusters before anything is written to them; they read as zero. */
export class Preallocator {
  readonly #parts: PreallocatorParts;

  constructor(parts: PreallocatorParts) {
    this.#parts = parts;
  }

  /**
   * Maps every cluster of a range that has no place yet and is read as zero. The caller has it for itself.
   *
   * @param offset start of a cluster.
   * @throws LacunaError ERR_ABORTED; some of them are mapped then.
   */
  async map(offset: number, end: number, how: Reserving): Promise<void> {
    const { geometry, mapping } = this.#parts;
    const { clusterSize, l2Span } = geometry;
    const last = alignUp(end, clusterSize);
    const turns = new Turns();
    for (let at = offset; at < last; ) {
      await turns.next();
      throwIfAborted(how.signal);
      const stop = Math.min(last, at - (at % l2Span) + l2Span);
      const mapped = await mapping.lookUp(at, (stop - at) / clusterSize);
      for (let i = 0; i < mapped.length; ) {
        const count = withoutPlace(mapped, i);
        if (count === 0) i++;
        else i += await this.#mapSome(at + i * clusterSize, count, how);
      }
      at = stop;
    }
  }

  /** Maps as many clusters in a row as there is room for in a row, and says how many. */
  async #mapSome(offset: number, most: number, how: Reserving): Promise<number> {
    const { geometry, mapping, allocator, hasDataFile } = this.#parts;
    const run: Run = hasDataFile ? { offset, count: most } : await allocator.allocate(most);
    const { clusterSize } = geometry;
    try {
      await this.#reserve(run.offset, run.count * clusterSize, how);
      const allocated = allUnits(geometry);
      await mapping.change(offset, run.count, (_before, index) => {
        return { host: run.offset + index * clusterSize, copied: true, allocated, zero: 0 };
      });
    } catch (error) {
      if (!hasDataFile) await allocator.free([run]).catch(() => {});
      throw error;
    }
    return run.count;
  }

  /** Lets clusters that were used before read as zero, and the file reach over them. */
  async #reserve(offset: number, length: number, how: Reserving): Promise<void> {
    const { data } = this.#parts;
    const { reserved, signal } = how;
    if (reserved === 'full' || !data.canZero) return this.#writeZeroes(offset, length, signal);
    const { end, unit } = data;
    if (offset + length > end) {
      await data.write(offset + length - unit, new Uint8Array(unit));
    }
    await data.zero(offset, length, reserved === 'metadata');
  }

  async #writeZeroes(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    const zeroes = new Uint8Array(Math.min(PIECE_BYTES, length));
    const turns = new Turns();
    for (let at = 0; at < length; at += zeroes.length) {
      throwIfAborted(signal);
      await turns.next();
      await this.#parts.data.write(offset + at, zeroes.subarray(0, length - at));
    }
  }
}

/** How many clusters from one on have no place of their own. */
function withoutPlace(mapped: readonly Mapped[], first: number): number {
  let end = first;
  while (end < mapped.length && isPlaceless(mapped[end])) end++;
  return end - first;
}

function isPlaceless({ host, compressed }: Mapped): boolean {
  return host === undefined && compressed === undefined;
}
