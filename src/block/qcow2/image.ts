import {
  corrupt,
  type Geometry,
  geometryOf,
  type Header,
  hasDataFile,
  type MappingRules,
  type Snapshot,
  viewOf,
} from '../../qcow2/index.js';
import type { Device } from '../device.js';
import { type Decompress, decompressorFor } from './decompress.js';
import { L1Table } from './l1-table.js';
import { readPadded } from './read-padded.js';
import { tableCache } from './table-cache.js';

/** What an image is made of. */
export interface ImageParts {
  readonly header: Header;
  readonly file: Device;
  /** Where guest clusters lie, if not in `file`. */
  readonly dataFile?: Device;
  /** The snapshot whose disk is read instead of the active one. */
  readonly snapshot?: Snapshot;
}

/** Where the tables of an image are looked up: in its file, or with whoever changes them. */
export interface ImageTables {
  /** Where the L2 table of an entry of the L1 table is; 0 where there is none. */
  tableAt(index: number): number;
  /** The first entry from `index` on that may have an L2 table; `end` where there is none before it. */
  nextUsed(index: number, end: number): number;
  /** The L2 table of an entry, which lies at `offset`: at once where it is in memory. */
  l2(index: number, offset: number): DataView | Promise<DataView>;
}

/** The tables and clusters of one image, without its backing file. */
export class Image {
  readonly name: string;
  readonly header: Header;
  readonly geometry: Geometry;
  readonly rules: MappingRules;
  /** Bytes of the disk. */
  readonly size: number;
  readonly file: Device;
  /** Where guest clusters lie. */
  readonly data: Device;
  #tables: ImageTables;
  /** A writer changes the tables, and the files. */
  #changes = false;
  readonly #decompress: Decompress;
  readonly #number = tableCache.enter();
  /** The cluster that was decompressed last: small reads come one after another. */
  #cluster?: Uint8Array;
  #clusterHost = -1;

  private constructor(parts: ImageParts, l1: L1Table, decompress: Decompress) {
    const { header, file, dataFile, snapshot } = parts;
    this.name = file.name;
    this.header = header;
    this.geometry = geometryOf(header);
    this.rules = {
      geometry: this.geometry,
      version: header.version,
      dataFile: hasDataFile(header),
      image: file.name,
    };
    this.size = snapshot?.size ?? header.size;
    this.file = file;
    this.data = dataFile ?? file;
    this.#tables = {
      tableAt: (index) => l1.tableAt(index),
      nextUsed: (index, end) => l1.nextUsed(index, end),
      l2: (_index, offset) => tableCache.get(this.#number, offset) ?? this.#readL2(offset),
    };
    this.#decompress = decompress;
  }

  /** @throws LacunaError ERR_QCOW2_CORRUPT where the L1 table cannot be. */
  static async open(parts: ImageParts): Promise<Image> {
    const { header, file, snapshot } = parts;
    const { l1Offset, l1Size } = snapshot ?? header;
    const place = { offset: l1Offset, entries: l1Size };
    const l1 = await L1Table.read(file, place, geometryOf(header));
    return new Image(parts, l1, await decompressorFor(header.compression));
  }

  get tables(): ImageTables {
    return this.#tables;
  }

  /** Whether what is known of the files may be old. */
  get changes(): boolean {
    return this.#changes;
  }

  /** Looks tables up with a writer from now on, who has newer ones than the file. */
  follow(tables: ImageTables): void {
    this.#tables = tables;
    this.expectChanges();
  }

  /** Says that somebody changes the files, though not the tables. */
  expectChanges(): void {
    this.#changes = true;
  }

  async #readL2(offset: number): Promise<DataView> {
    const { clusterSize } = this.geometry;
    if (offset + clusterSize > this.file.size) {
      throw corrupt(this.name, `an L2 table at ${offset}, behind the end of the file`, offset);
    }
    const bytes = new Uint8Array(clusterSize);
    await this.file.read(offset, bytes);
    const table = viewOf(bytes);
    tableCache.set(this.#number, offset, table);
    return table;
  }

  /**
   * Fills `target` with a part of a compressed cluster.
   *
   * @param host where the compressed bytes start; they take at most `hostLength`.
   * @param inside the first byte of the cluster that is wanted.
   */
  async readCompressed(
    { host, hostLength }: { host: number; hostLength: number },
    inside: number,
    target: Uint8Array,
  ): Promise<void> {
    const cluster =
      this.#clusterHost === host ? this.#cluster! : await this.#readCluster(host, hostLength);
    target.set(cluster.subarray(inside, inside + target.length));
  }

  async #readCluster(host: number, hostLength: number): Promise<Uint8Array> {
    const { clusterSize } = this.geometry;
    const bytes = new Uint8Array(hostLength);
    await readPadded(this.file, host, bytes);
    const cluster = this.#decompress(bytes, clusterSize);
    if (cluster === undefined) {
      const found = `${hostLength} bytes that are no cluster compressed by ${this.header.compression}`;
      throw corrupt(this.name, found, host);
    }
    // A writer may put another cluster there.
    if (this.#changes) return cluster;
    this.#cluster = cluster;
    this.#clusterHost = host;
    return cluster;
  }

  /** Gives back what is held in memory; the devices are the caller's to close. */
  forget(): void {
    tableCache.leave(this.#number);
    this.#cluster = undefined;
    this.#clusterHost = -1;
  }
}
