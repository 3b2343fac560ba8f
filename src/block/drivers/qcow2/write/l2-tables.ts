import { corrupt, cutShort } from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import { type HostFile, joinSpans, type LiveHeader, type Span } from '../io/index.js';

/** L2 tables are kept up to this many bytes, and sixteen of them whatever they take. */
const CACHE_BYTES = 16 * 1024 * 1024;
const CACHE_TABLES = 16;
/** With so much of them changed, they are written without waiting for a flush. */
const DIRTY_SHARE = 0.5;

/** An L2 table in memory. */
export interface L2Table {
  readonly l1Index: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly offset: number;
  /** What the file does not have yet. */
  dirty?: Span;
  /** The L1 table in the file does not name it yet. */
  fresh: boolean;
  /** Is being written: what the file holds is older. */
  leaving: boolean;
}

/** A changed part of a table, in whole sectors. */
export interface SpanChange {
  readonly span: Span;
  readonly sectors: Uint8Array;
}

export interface TableChange extends SpanChange {
  readonly table: L2Table;
  readonly fresh: boolean;
}

/**
 * The L2 tables of an image that is being written, as far as they are in memory: those used last, and all that the file
 * does not have as they are.
 */
export class L2Tables {
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #tables = new Map<number, L2Table>();
  readonly #loading = new Map<number, Promise<L2Table>>();
  /** L1 entries whose tables are about to be changed, and by how many: they stay in memory, or all would wait in turn. */
  readonly #wanted = new Map<number, number>();
  readonly #limit: number;

  constructor(file: HostFile, header: LiveHeader) {
    this.#file = file;
    this.#header = header;
    this.#limit = Math.max(CACHE_TABLES, CACHE_BYTES / header.geometry.clusterSize);
  }

  /** The table of an L1 entry, if it is in memory. */
  known(l1Index: number): L2Table | undefined {
    return this.#tables.get(l1Index);
  }

  /**
   * The table of an L1 entry, which lies at `offset`.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT where no table can be.
   */
  table(l1Index: number, offset: number): Promise<L2Table> {
    const known = this.#tables.get(l1Index);
    if (known !== undefined) {
      this.#tables.delete(l1Index);
      this.#tables.set(l1Index, known);
      return Promise.resolve(known);
    }
    let loading = this.#loading.get(l1Index);
    if (loading === undefined) {
      loading = this.#load(l1Index, offset).finally(() => this.#loading.delete(l1Index));
      this.#loading.set(l1Index, loading);
    }
    return loading;
  }

  /** Puts a table that the file does not have in the place of the one that an L1 entry had, if any. */
  add(l1Index: number, bytes: Uint8Array, offset: number): void {
    this.#makeRoom();
    const dirty = { from: 0, to: bytes.length };
    this.#keep({ ...tableOf(l1Index, bytes, offset), fresh: true, dirty });
  }

  /** Lets go of the table of an L1 entry that is there no more. */
  forget(l1Index: number): void {
    this.#evict(l1Index);
  }

  /** Keeps the table of an L1 entry in memory, once it is there, until {@link release}. */
  hold(l1Index: number): void {
    this.#wanted.set(l1Index, (this.#wanted.get(l1Index) ?? 0) + 1);
  }

  release(l1Index: number): void {
    const others = this.#wanted.get(l1Index)! - 1;
    if (others > 0) this.#wanted.set(l1Index, others);
    else this.#wanted.delete(l1Index);
  }

  /** Whether enough has changed to be written without waiting for a flush. */
  get isFull(): boolean {
    let dirty = 0;
    for (const table of this.#tables.values()) if (table.dirty !== undefined) dirty++;
    return dirty > this.#limit * DIRTY_SHARE;
  }

  /** What the file lacks now. Each call must be followed by {@link settle}. */
  takeChanges(): TableChange[] {
    const changes: TableChange[] = [];
    for (const table of this.#tables.values()) {
      const { fresh, dirty: span } = table;
      if (span === undefined) continue;
      const sectors = this.#file.sectorsOf(table.bytes, span).slice();
      changes.push({ table, span, fresh, sectors });
      table.dirty = undefined;
      table.fresh = false;
      table.leaving = true;
    }
    return changes;
  }

  /** Says whether changes are in the file now, or must be handed out again. */
  settle(changes: readonly TableChange[], written: boolean): void {
    for (const { table, span, fresh } of changes) {
      table.leaving = false;
      if (written) continue;
      table.dirty = joinSpans(table.dirty, span);
      table.fresh = fresh;
    }
  }

  async #load(l1Index: number, offset: number): Promise<L2Table> {
    const { clusterSize } = this.#header.geometry;
    if (offset % clusterSize !== 0 || !Number.isSafeInteger(offset)) {
      const at = this.#header.current.l1Offset + l1Index * 8;
      throw corrupt(
        this.#file.name,
        `an L2 table at ${offset}, which is no start of a cluster`,
        at,
      );
    }
    const bytes = new Uint8Array(clusterSize);
    const found = this.#header.metadataIn(offset, offset + bytes.length);
    if (found !== undefined) throw corrupt(this.#file.name, `${found} in an L2 table`, offset);
    if (offset + bytes.length > this.#file.end) {
      throw cutShort(this.#file.name, 'an L2 table', { offset, end: this.#file.end });
    }
    await this.#file.read(offset, bytes);
    this.#makeRoom();
    return this.#keep(tableOf(l1Index, bytes, offset));
  }

  #keep(table: L2Table): L2Table {
    this.#evict(table.l1Index);
    this.#tables.set(table.l1Index, table);
    this.#header.tables.set(table.offset, 'an L2 table');
    return table;
  }

  #evict(l1Index: number): void {
    const table = this.#tables.get(l1Index);
    if (table === undefined) return;
    this.#tables.delete(l1Index);
    this.#header.tables.delete(table.offset);
  }

  /** Makes room for one more table among those that the file has as they are. */
  #makeRoom(): void {
    if (this.#tables.size < this.#limit) return;
    for (const table of this.#tables.values()) {
      if (table.dirty !== undefined || table.fresh || table.leaving) continue;
      if (this.#wanted.has(table.l1Index)) continue;
      this.#evict(table.l1Index);
      if (this.#tables.size < this.#limit) return;
    }
  }
}

function tableOf(l1Index: number, bytes: Uint8Array, offset: number): L2Table {
  return { l1Index, bytes, view: viewOf(bytes), offset, fresh: false, leaving: false };
}
