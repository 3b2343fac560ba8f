import { LacunaError } from '../../../../errors/index.js';
import { Autoclear, type Header, type Run, RunKind } from '../../../../qcow2/index.js';
import type { BlockDevice, WriteOptions, ZeroOptions } from '../../../contract/index.js';
import type { Image, TableSlices } from '../read/index.js';
import type { GuestWriter } from './guest-writer.js';
import { checkWritable } from './limits.js';

/**
 * Writes into clusters that are mapped already, and changes no table: so any number of these may write one image at the
 * same time. Whatever needs a table to change is refused.
 */
export class FixedWriter implements GuestWriter {
  readonly #image: Image;
  readonly #slices: TableSlices;
  readonly #isOver: boolean;

  /**
   * @throws LacunaError ERR_DEVICE_UNSUPPORTED where writing in place would change what snapshots hold, or what other
   * programs know of the disk.
   */
  constructor(image: Image, slices: TableSlices, backing: BlockDevice | undefined) {
    const { header, name } = image;
    checkWritable(header, name);
    const found = inTheWay(header);
    if (found !== undefined) throw refusal(name, `it has ${found}, so its mapping cannot be fixed`);
    this.#image = image;
    this.#slices = slices;
    // An image that is opened without its backing file shows that again later.
    this.#isOver = backing !== undefined || header.backingFile !== undefined;
    image.expectChanges();
  }

  get current(): Header {
    return this.#image.header;
  }

  async nameBacking(): Promise<never> {
    return this.checkBackingName();
  }

  checkBackingName(): never {
    throw refusal(
      this.#image.name,
      'its mapping is fixed, so its backing file cannot be another one',
    );
  }

  /** Nobody ever moves what is read. */
  reading<T>(_offset: number, _length: number, read: () => Promise<T>): Promise<T> {
    return read();
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const { data } = this.#image;
    for (let done = 0; done < source.length; ) {
      const at = offset + done;
      const { kind, host, length } = await this.#slices.find(at, offset + source.length);
      if (kind !== RunKind.data) throw this.#refuse(at);
      await data.write(host, source.subarray(done, done + length), options);
      done += length;
    }
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const { data } = this.#image;
    const end = offset + length;
    await this.#visit(offset, end, async (at, { kind }) => {
      if (!this.#canZero(kind)) throw this.#refuse(at);
    });
    await this.#visit(offset, end, async (_at, run) => {
      if (run.kind === RunKind.data) await data.zero(run.host, run.length, options);
    });
  }

  async #visit(offset: number, end: number, visit: (at: number, run: Run) => Promise<void>) {
    for (let at = offset; at < end; ) {
      const run = await this.#slices.find(at, end);
      await visit(at, run);
      at += run.length;
    }
  }

  async discard(offset: number): Promise<void> {
    throw this.#refuse(offset);
  }

  /** All is in the file already. */
  async finish(): Promise<void> {}

  async flush(): Promise<void> {
    const { data, file } = this.#image;
    await data.flush();
    if (data !== file) await file.flush();
  }

  async grow(): Promise<void> {
    throw this.#refuse(this.#image.size);
  }

  async shrink(): Promise<void> {
    throw this.#refuse(this.#image.size);
  }

  /** In place, or because it reads as zero already. */
  #canZero(kind: number): boolean {
    if (kind === RunKind.unallocated) return !this.#isOver;
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
