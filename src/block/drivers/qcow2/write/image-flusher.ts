import { Serial } from '../../../../util/index.js';
import type { HostFile, LiveHeader } from '../io/index.js';
import type { Allocator } from './allocator.js';
import type { Mapping, MappingChanges } from './mapping.js';

export interface ImageFlusherParts {
  readonly file: HostFile;
  /** Where guest clusters lie, if not in the image itself. */
  readonly dataFile?: HostFile;
  readonly header: LiveHeader;
  readonly allocator: Allocator;
  readonly mapping: Mapping;
}

/**
 * Brings what changed in memory into the file, in an order that leaves the image consistent wherever it is cut off:
 *
 *     1  refcounts of new clusters, new L2 tables     nothing refers to them yet: at worst they leak
 *     -- flush --                                     (data written before is durable with it)
 *     2  entries of L2 tables, entries of the L1      each refers to what is there and counted
 *     -- flush --
 *     3  refcounts of clusters nothing refers to any more; only then can they be given out again
 *
 * Each step may be torn at any sector and its writes may reach the disk in any order.
 */
export class ImageFlusher {
  readonly #parts: ImageFlusherParts;
  readonly #turns = new Serial();
  /** A flush that has not begun: it does for all who ask meanwhile. */
  #next?: Promise<void>;
  /** Guest bytes were written that no flush has followed. */
  #wrote = false;

  constructor(parts: ImageFlusherParts) {
    this.#parts = parts;
  }

  /** Says that bytes were written into clusters. */
  wroteData(): void {
    this.#wrote = true;
  }

  /** Makes everything durable that was complete when this was called. */
  flush(): Promise<void> {
    this.#next ??= this.#turns.run(() => {
      this.#next = undefined;
      return this.#flush();
    });
    return this.#next;
  }

  async #flush(): Promise<void> {
    const { mapping, allocator } = this.#parts;
    const unlinked = mapping.takeUnlinked();
    const changes = mapping.takeChanges();
    if (!this.#wrote && changes.tables.length === 0 && !allocator.isDirty) return;
    this.#wrote = false;
    try {
      await this.#write(changes);
      mapping.settle(changes, true);
    } catch (error) {
      this.#wrote = true;
      mapping.settle(changes, false);
      mapping.keepUnlinked(unlinked);
      throw error;
    }
    if (unlinked.length === 0) return;
    await allocator.free(unlinked);
    await allocator.writeBack();
  }

  async #write({ tables, l1 }: MappingChanges): Promise<void> {
    const { file, dataFile, allocator, header } = this.#parts;
    await allocator.writeBack();
    for (const { table, sectors, span, fresh } of tables) {
      if (fresh) await file.writeSectors(table.offset, sectors, span);
    }
    await dataFile?.flush();
    await file.flush();
    if (tables.length === 0) return;
    for (const { table, sectors, span, fresh } of tables) {
      if (!fresh) await file.writeSectors(table.offset, sectors, span);
    }
    for (const { sectors, span } of l1) {
      await file.writeSectors(header.current.l1Offset, sectors, span);
    }
    await file.flush();
  }
}
