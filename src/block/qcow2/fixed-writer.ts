import { LacunaError } from '../../errors/index.js';
import { Autoclear, type Header, RunKind } from '../../qcow2/index.js';
import type { Device } from '../device.js';
import type { WriteOptions, ZeroOptions } from '../driver.js';
import type { GuestWriter } from './guest-writer.js';
import type { Image } from './image.js';
import { checkWritable } from './image-writer.js';
import { RunWalk } from './run-walk.js';

/**
 * Writes into clusters that are mapped already, and changes no table: so any number of these may write one image at the
 * same time. Whatever needs a table to change is refused.
 */
export class FixedWriter implements GuestWriter {
  readonly #image: Image;
  readonly #backing: Device | undefined;

  /**
   * @throws LacunaError ERR_DEVICE_UNSUPPORTED where writing in place would change what snapshots hold, or what other
   * programs know of the disk.
   */
  constructor(image: Image, backing: Device | undefined) {
    const { header, name } = image;
    checkWritable(header, name);
    const found = inTheWay(header);
    if (found !== undefined) throw refusal(name, `it has ${found}, so its mapping cannot be fixed`);
    this.#image = image;
    this.#backing = backing;
    image.expectChanges();
  }

  /** Nobody ever moves what is read. */
  reading<T>(_offset: number, _length: number, read: () => Promise<T>): Promise<T> {
    return read();
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const walk = new RunWalk(this.#image, offset, offset + source.length);
    while (await walk.next()) {
      if (walk.kind !== RunKind.data) throw this.#refuse(walk.offset);
      const at = walk.offset - offset;
      await this.#image.data.write(walk.host, source.subarray(at, at + walk.length), options);
    }
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const end = offset + length;
    const check = new RunWalk(this.#image, offset, end);
    while (await check.next()) if (!this.#canZero(check.kind)) throw this.#refuse(check.offset);
    const walk = new RunWalk(this.#image, offset, end);
    while (await walk.next()) {
      if (walk.kind === RunKind.data) await this.#image.data.zero(walk.host, walk.length, options);
    }
  }

  async discard(offset: number): Promise<void> {
    throw this.#refuse(offset);
  }

  async flush(): Promise<void> {
    const { data, file } = this.#image;
    await data.flush();
    if (data !== file) await file.flush();
  }

  async grow(): Promise<void> {
    throw this.#refuse(this.#image.size);
  }

  /** In place, or because it reads as zero already. */
  #canZero(kind: number): boolean {
    if (kind === RunKind.unallocated) return this.#backing === undefined;
    return kind !== RunKind.compressed;
  }

  #refuse(offset: number): LacunaError {
    const what = `its mapping is fixed, and byte ${offset} of the disk cannot be written in place`;
    return refusal(this.#image.name, `${what}: open it without "mapping"`);
  }
}

function inTheWay({ snapshotCount, autoclear }: Header): string | undefined {
  if (snapshotCount > 0) return 'snapshots';
  if ((autoclear & ~Autoclear.rawDataFile) !== 0n) return 'bitmaps, or the like';
  return undefined;
}

function refusal(image: string, why: string): LacunaError {
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', `${image}: ${why}`, { device: image });
}
