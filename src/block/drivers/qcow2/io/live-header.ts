import { encodeHeader, type Geometry, geometryOf, type Header } from '../../../../qcow2/index.js';
import { alignDown, Serial, viewOf, writeU64 } from '../../../../util/index.js';
import type { BackingName } from '../../../contract/index.js';
import type { HostFile } from './host-file.js';
import { withBackingName, writeBackingName } from './write-backing-name.js';

/**
 * The fields that change while an image is written. All lie in the first sector, and so change at once; but for the
 * extensions, which whoever changes them has written, and which are only taken note of here.
 */
export type HeaderChanges = Partial<
  Pick<
    Header,
    | 'size'
    | 'l1Size'
    | 'l1Offset'
    | 'refcountTableOffset'
    | 'refcountTableClusters'
    | 'snapshotCount'
    | 'snapshotsOffset'
    | 'compatible'
    | 'incompatible'
    | 'autoclear'
    | 'extensions'
  >
>;

/** The header of an image that is being written. */
export class LiveHeader {
  readonly geometry: Geometry;
  /** Other clusters of metadata, by where they lie: as far as they are known to whoever changes them. */
  readonly tables = new Map<number, string>();
  readonly #file: HostFile;
  readonly #turns = new Serial();
  readonly #layouts = new Serial();
  #current: Header;

  constructor(file: HostFile, header: Header) {
    this.geometry = geometryOf(header);
    this.#file = file;
    this.#current = header;
  }

  get current(): Header {
    return this.#current;
  }

  /** Changes fields: after all that was written before is durable, and durably when it returns. */
  update(changes: HeaderChanges): Promise<void> {
    return this.#turns.run(async () => {
      const header = { ...this.#current, ...changes };
      const sector = new Uint8Array(this.#file.unit);
      await this.#file.read(0, sector);
      patch(sector, header);
      await this.#file.flush();
      await this.#file.whole(() => this.#file.write(0, sector));
      await this.#file.flush();
      this.#current = header;
    });
  }

  /**
   * Runs what lays out the first cluster anew, beyond the fields that {@link update} changes: one after another. It may call
   * that.
   */
  layOut<T>(task: () => Promise<T>): Promise<T> {
    return this.#layouts.run(task);
  }

  /** Names another backing file, or none: after all that was written before is durable, and durably when it returns. */
  nameBacking(backing: BackingName | null): Promise<void> {
    return this.layOut(() =>
      this.#turns.run(async () => {
        await this.#file.flush();
        this.#current = await writeBackingName(this.#file, this.#current, backing);
      }),
    );
  }

  /** @throws LacunaError ERR_QCOW2_UNSUPPORTED where the name does not fit into the first cluster. */
  checkBackingName(backing: BackingName | null): void {
    encodeHeader(withBackingName(this.#current, backing), this.#file.name);
  }

  /** What of the metadata whose places are known lies between two bytes of the file. */
  metadataIn(start: number, end: number): string | undefined {
    const { l1Offset, l1Size, refcountTableOffset, refcountTableClusters } = this.#current;
    const { snapshotsOffset, snapshotCount } = this.#current;
    const { clusterSize } = this.geometry;
    const places: [string, number, number][] = [
      ['the header', 0, clusterSize],
      ['the L1 table', l1Offset, l1Size * 8],
      ['the refcount table', refcountTableOffset, refcountTableClusters * clusterSize],
      ['the snapshot table', snapshotsOffset, snapshotCount > 0 ? 1 : 0],
    ];
    const found = places.find(
      ([, from, length]) => length > 0 && from < end && start < from + length,
    )?.[0];
    return found ?? this.#tableIn(start, end);
  }

  #tableIn(start: number, end: number): string | undefined {
    const { clusterSize } = this.geometry;
    for (let at = alignDown(start, clusterSize); at < end; at += clusterSize) {
      const found = this.tables.get(at);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** Puts the fields that change into the first sector (specification: "Header"). */
function patch(sector: Uint8Array, header: Header): void {
  const view = viewOf(sector);
  writeU64(view, 24, header.size);
  view.setUint32(36, header.l1Size);
  writeU64(view, 40, header.l1Offset);
  writeU64(view, 48, header.refcountTableOffset);
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  writeU64(view, 64, header.snapshotsOffset);
  if (header.version === 2) return;
  view.setBigUint64(72, header.incompatible);
  view.setBigUint64(80, header.compatible);
  view.setBigUint64(88, header.autoclear);
}
