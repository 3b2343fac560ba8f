import {
  Autoclear,
  BITMAPS_EXTENSION_BYTES,
  type BitmapsExtension,
  findExtensions,
  putBitmapsBody,
  putBitmapsHead,
  unsupported,
} from '../../../../qcow2/index.js';
import { alignUp, viewOf, writeU64 } from '../../../../util/index.js';
import type { HostFile, LiveHeader, Span } from '../io/index.js';

/** A write of bytes inside one of these happens whole or not at all. */
const SECTOR = 512;

/**
 * Makes the header name another directory of bitmaps, or none, durably. What it names must be durable before. A crash
 * leaves the old directory or the new one; only where the extension lies across two sectors, it may leave none.
 */
export async function nameBitmapDirectory(
  file: HostFile,
  header: LiveHeader,
  bitmaps: BitmapsExtension | undefined,
): Promise<void> {
  await header.layOut(async () => {
    const cluster = new Uint8Array(header.geometry.clusterSize);
    await file.read(0, cluster);
    const naming = new Naming(file, header, cluster);
    await (bitmaps === undefined ? naming.remove() : naming.set(bitmaps));
  });
}

class Naming {
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #cluster: Uint8Array;

  constructor(file: HostFile, header: LiveHeader, cluster: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#cluster = cluster;
  }

  async set(bitmaps: BitmapsExtension): Promise<void> {
    const { bitmaps: at } = findExtensions(this.#cluster);
    if (at === undefined) await this.#append(bitmaps);
    else await this.#replace(at, bitmaps);
    await this.#believe(bitmaps, true);
  }

  /** Without the bit in the header nobody looks at the extension, so that goes second, and where it is the last one. */
  async remove(): Promise<void> {
    await this.#believe(undefined, false);
    const { bitmaps: at, end } = findExtensions(this.#cluster);
    if (at === undefined || end !== at + BITMAPS_EXTENSION_BYTES) return;
    await this.#write(putBitmapsHead(this.#cluster, at, false));
  }

  async #replace(at: number, bitmaps: BitmapsExtension): Promise<void> {
    const span = putBitmapsBody(this.#cluster, at, bitmaps);
    const torn = Math.floor(span.from / SECTOR) !== Math.floor((span.to - 1) / SECTOR);
    if (torn) await this.#believe(this.#header.current.extensions.bitmaps, false);
    await this.#write(span);
  }

  /** Puts the extension behind the others, its type last: until then all extensions end before it. */
  async #append(bitmaps: BitmapsExtension): Promise<void> {
    const { end } = findExtensions(this.#cluster);
    if (end === undefined) throw this.#full();
    const behind = end + BITMAPS_EXTENSION_BYTES;
    if (behind + 8 > findExtensions(this.#cluster).limit) await this.#moveBackingName(behind + 8);
    const { from } = putBitmapsBody(this.#cluster, end, bitmaps);
    const { to } = putBitmapsHead(this.#cluster, behind, false);
    await this.#write({ from, to });
    await this.#write(putBitmapsHead(this.#cluster, end, true));
  }

  /** Copies the name of the backing file to a place behind `from`, then makes the header name that. */
  async #moveBackingName(from: number): Promise<void> {
    const view = viewOf(this.#cluster);
    const length = view.getUint32(16);
    const { limit } = findExtensions(this.#cluster);
    const to = alignUp(Math.max(from, limit + length), 8);
    if (limit === this.#cluster.length || to + length > this.#cluster.length) throw this.#full();
    this.#cluster.copyWithin(to, limit, limit + length);
    await this.#write({ from: to, to: to + length });
    writeU64(view, 8, to);
    await this.#write({ from: 8, to: 16 });
  }

  /** Says in the header whether the extension may be believed. */
  async #believe(bitmaps: BitmapsExtension | undefined, valid: boolean): Promise<void> {
    const { autoclear, extensions } = this.#header.current;
    const others = autoclear & ~Autoclear.bitmaps;
    await this.#header.update({
      autoclear: valid ? others | Autoclear.bitmaps : others,
      extensions: { ...extensions, bitmaps },
    });
    // The cluster in memory must not bring the old fields back.
    viewOf(this.#cluster).setBigUint64(88, this.#header.current.autoclear);
  }

  async #write(span: Span): Promise<void> {
    await this.#file.writeSpan(0, this.#cluster, span);
    await this.#file.flush();
  }

  #full() {
    const needed = 'has no room in its first cluster for the extension that names its bitmaps';
    return unsupported(this.#file.name, needed, 'copy it into an image with larger clusters');
  }
}
