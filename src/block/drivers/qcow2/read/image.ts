import { statSync } from 'node:fs';
import { LacunaError } from '../../../../errors/index.js';
import {
  corrupt,
  cutShort,
  type Geometry,
  geometryOf,
  type Header,
  hasDataFile,
  type MappingRules,
  type Run,
  RunKind,
  type Snapshot,
} from '../../../../qcow2/index.js';
import { alignDown, viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { readPadded, tableCache } from '../io/index.js';
import { type Decompress, decompressorFor } from './decompress.js';
import { L1Table } from './l1-table.js';

/** What an image is made of. */
export interface ImageParts {
  readonly header: Header;
  readonly file: BlockDevice;
  /** Where guest clusters lie, if not in `file`. */
  readonly dataFile?: BlockDevice;
  /** The snapshot whose disk is read instead of the active one. */
  readonly snapshot?: Snapshot;
  /** What the file does not have any more reads as zero. */
  readonly rescue?: boolean;
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
  readonly file: BlockDevice;
  /** Where guest clusters lie. */
  readonly data: BlockDevice;
  /** What the file does not have any more reads as zero, in place of an error. */
  readonly rescue: boolean;
  /** Entries of the L1 table that the file has. */
  readonly knownTables: number;
  #tables: ImageTables;
  /** A writer changes the tables, and the files. */
  #changes = false;
  readonly #decompress: Decompress;
  readonly #number = tableCache.addImage();
  /** The cluster that was decompressed last: small reads come one after another. */
  #cluster?: Uint8Array;
  #clusterHost = -1;

  private constructor(parts: ImageParts, l1: L1Table, decompress: Decompress) {
    const { header, file, dataFile, snapshot, rescue = false } = parts;
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
    this.rescue = rescue;
    this.knownTables = rescue ? l1.known : Number.POSITIVE_INFINITY;
    this.#tables = {
      tableAt: (index) => l1.tableAt(index),
      nextUsed: (index, end) => l1.nextUsed(index, end),
      l2: (_index, offset) => tableCache.get(this.#number, offset) ?? this.#readL2(offset),
    };
    this.#decompress = decompress;
  }

  /** @throws LacunaError ERR_QCOW2_CORRUPT where the L1 table cannot be. */
  static async open(parts: ImageParts): Promise<Image> {
    const { header, file, snapshot, rescue } = parts;
    const { l1Offset, l1Size } = snapshot ?? header;
    const place = { offset: l1Offset, entries: l1Size };
    const l1 = await L1Table.read(file, place, geometryOf(header), rescue);
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

  /** How much of a table at a byte of the file is there. */
  knownBytes(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.file.end - offset));
  }

  /**
   * Makes sure that the files have what a run names.
   *
   * QEMU and others write whole clusters and subclusters, but for what lies behind the end of the disk; only that may
   * be missing in the last cluster of a file. Nothing else is, in a sound image: what is allocated and not written yet
   * has no entry. So a run, which ends with the disk, must be there to its last byte. Zeroes need nothing, wherever
   * their cluster is, and of compressed bytes only the decompressor knows where they end.
   *
   * @returns false where the run is missing and shall read as zero; then it is one of zeroes. One that is there in part
   * is made as short as that.
   * @throws LacunaError ERR_QCOW2_CORRUPT where it shall not.
   */
  settle(run: Run): boolean {
    const { kind, host, length } = run;
    if (kind === RunKind.data) {
      if (host + length <= this.data.end) return true;
      if (!this.rescue) {
        const at = Math.max(host, alignDown(this.data.end, this.geometry.clusterSize));
        throw missing(this.data, this.name, 'a cluster of the disk', at);
      }
      if (host < this.data.end) {
        run.length = this.data.end - host;
        return true;
      }
    } else if (kind === RunKind.compressed) {
      if (host < this.file.end) return true;
      if (!this.rescue) throw missing(this.file, this.name, 'a compressed cluster', host);
    } else return true;
    run.kind = RunKind.zero;
    return false;
  }

  async #readL2(offset: number): Promise<DataView> {
    const { clusterSize } = this.geometry;
    const known = this.knownBytes(offset, clusterSize);
    if (known < clusterSize && !this.rescue) {
      throw missing(this.file, this.name, 'an L2 table', offset);
    }
    const bytes = new Uint8Array(clusterSize);
    await readPadded(this.file, offset, bytes);
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
      this.#clusterHost === host ? this.#cluster : await this.#readCluster(host, hostLength);
    if (cluster === undefined) target.fill(0);
    else target.set(cluster.subarray(inside, inside + target.length));
  }

  /** Whether the file ends inside the bytes of a compressed cluster. */
  async isCut({ host, hostLength }: { host: number; hostLength: number }): Promise<boolean> {
    if (host + hostLength <= this.file.end) return false;
    return (await this.#readCluster(host, hostLength)) === undefined;
  }

  /** Undefined where it is missing in part, and shall read as zero. */
  async #readCluster(host: number, hostLength: number): Promise<Uint8Array | undefined> {
    const { clusterSize } = this.geometry;
    const bytes = new Uint8Array(hostLength);
    await readPadded(this.file, host, bytes);
    const cluster = await this.#decompress(bytes, clusterSize);
    if (cluster === undefined && host + hostLength > this.file.end) {
      if (this.rescue) return undefined;
      throw missing(this.file, this.name, 'a compressed cluster', host);
    }
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
  free(): void {
    tableCache.freeImage(this.#number);
    this.#cluster = undefined;
    this.#clusterHost = -1;
  }
}

/** A file that has grown since it was opened is not cut short: its tables are newer than what is known of its size. */
function missing(file: BlockDevice, image: string, what: string, offset: number): LacunaError {
  const { path, end } = file;
  const now = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })?.size;
  if (now === undefined || now <= end) return cutShort(image, what, { offset, end });
  const message = `${file.name} has grown from ${end} to ${now} bytes since it was opened, so somebody writes it: open it again, or have the program that writes it serve the disk`;
  return new LacunaError('ERR_DEVICE_SHORT', message, {
    device: file.name,
    offset,
    retryable: true,
  });
}
