import { DirtyBitmaps } from '../../../../bitmap/index.js';
import { LacunaError } from '../../../../errors/index.js';
import { corrupt, l1EntriesFor, MAX_L1_BYTES, type Snapshot } from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { ImageBitmaps } from '../bitmaps/index.js';
import { findOneSnapshot, readerOf } from '../io/index.js';
import { ImageTables } from './image-tables.js';

/**
 * Makes the disk what it was in an internal snapshot, which stays. What the disk is now is lost. It gets the size that it
 * had then, and all of it is dirty in the bitmaps that record.
 *
 * @param file the image's own, open for writing.
 * @param wanted its id or its name.
 * @throws LacunaError ERR_DEVICE_OPEN where there is none, ERR_DEVICE_UNSUPPORTED where several are called that; ERR_BITMAP_INCONSISTENT where the size changes and a bitmap
 * lacks writes; what {@link ImageTables.open} throws.
 */
export async function applySnapshot(
  file: BlockDevice,
  wanted: string,
  { signal }: { readonly signal?: AbortSignal | undefined },
): Promise<Snapshot> {
  const tables = await ImageTables.open(file, signal);
  const snapshot = findOneSnapshot(wanted, tables.snapshots, file.name);
  checkSize(snapshot, tables);
  const old = tables.active;
  const place = { offset: snapshot.l1Offset, entries: snapshot.l1Size };
  await tables.look(place, { raises: true });
  await tables.look(old, { raises: false });
  const bitmaps = await KeptBitmaps.open(file, tables, snapshot);
  try {
    await tables.change(async () => {
      await tables.share(place);
      const { offset, entries } = await tables.copyL1(place, snapshot.size);
      await tables.allocator.writeBack();
      // As late as can be: what fails before spoils none of them.
      await bitmaps.prepare();
      await tables.header.update({ l1Offset: offset, l1Size: entries, size: snapshot.size });
      await tables.giveUp(old);
    });
    await bitmaps.store();
  } finally {
    bitmaps.free();
  }
  return snapshot;
}

/** A damaged image may name a size that no image can have: its disk could not be opened any more. */
function checkSize({ name, size, l1Offset }: Snapshot, { header, host }: ImageTables): void {
  if (l1EntriesFor(size, header.geometry) * 8 <= MAX_L1_BYTES) return;
  const found = `a disk of ${size} bytes in snapshot "${name}", which is too large for its clusters`;
  throw corrupt(host.name, found, l1Offset);
}

/** The bitmaps of an image whose disk becomes another one. */
class KeptBitmaps {
  readonly #stored: ImageBitmaps;
  readonly #bitmaps: DirtyBitmaps;
  readonly #size: number;

  private constructor(stored: ImageBitmaps, bitmaps: DirtyBitmaps, size: number) {
    this.#stored = stored;
    this.#bitmaps = bitmaps;
    this.#size = size;
  }

  static async open(
    file: BlockDevice,
    { host, header, allocator }: ImageTables,
    { size, name: to }: Snapshot,
  ): Promise<KeptBitmaps> {
    const parts = { reader: readerOf(file), file: host, header, allocator };
    const stored = await ImageBitmaps.open(parts);
    const { clusterSize } = header.geometry;
    const bitmaps = new DirtyBitmaps({ size: header.current.size, clusterSize });
    stored.restore(bitmaps);
    const broken = bitmaps.list().find(({ inconsistent }) => inconsistent);
    if (broken === undefined || size === bitmaps.size) {
      return new KeptBitmaps(stored, bitmaps, size);
    }
    bitmaps.free();
    const message = `bitmap '${broken.name}' of ${file.name} is inconsistent, and cannot get the size of snapshot "${to}": remove it first`;
    throw new LacunaError('ERR_BITMAP_INCONSISTENT', message, { device: file.name });
  }

  /** Makes durable that they lack what is about to happen. */
  async prepare(): Promise<void> {
    if (this.#size === this.#bitmaps.size) await this.#stored.beforeWrite();
    else await this.#stored.beforeResize();
  }

  /** All of the disk may be another one now: all of it is dirty where anything is recorded. */
  async store(): Promise<void> {
    if (this.#size !== this.#bitmaps.size) this.#bitmaps.resize(this.#size);
    this.#bitmaps.record(0, this.#size);
    await this.#stored.store();
  }

  free(): void {
    this.#bitmaps.free();
  }
}
