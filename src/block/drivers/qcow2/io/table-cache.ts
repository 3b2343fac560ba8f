/** Bytes of tables that a thread holds, of all images together. */
const MOST_BYTES = 32 * 1024 * 1024;

/**
 * The L2 tables of this thread's images that were used last. One cache for all of them: a chain of hundreds of images
 * must not hold hundreds of times as much.
 */
class TableCache {
  readonly #tables = new Map<string, DataView>();
  readonly #most: number;
  #bytes = 0;
  #images = 0;

  constructor(most = MOST_BYTES) {
    this.#most = most;
  }

  /** A number for an image, under which its tables are held. */
  addImage(): number {
    return this.#images++;
  }

  get(image: number, offset: number): DataView | undefined {
    const key = `${image}:${offset}`;
    const table = this.#tables.get(key);
    if (table === undefined) return undefined;
    // What was used last stands last.
    this.#tables.delete(key);
    this.#tables.set(key, table);
    return table;
  }

  set(image: number, offset: number, table: DataView): void {
    this.delete(image, offset);
    this.#tables.set(`${image}:${offset}`, table);
    this.#bytes += table.byteLength;
    for (const [key, oldest] of this.#tables) {
      if (this.#bytes <= this.#most || oldest === table) return;
      this.#evict(key, oldest);
    }
  }

  delete(image: number, offset: number): void {
    const key = `${image}:${offset}`;
    const table = this.#tables.get(key);
    if (table !== undefined) this.#evict(key, table);
  }

  /** Frees all tables of an image. */
  freeImage(image: number): void {
    for (const [key, table] of this.#tables) {
      if (key.startsWith(`${image}:`)) this.#evict(key, table);
    }
  }

  #evict(key: string, table: DataView): void {
    this.#tables.delete(key);
    this.#bytes -= table.byteLength;
  }
}

export const tableCache = new TableCache();
