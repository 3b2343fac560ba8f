import type { BlockDevice } from '../../../contract/index.js';

const MOST_BYTES = 1024 * 1024;

/** Many small writes that follow one another closely, made as few long ones. */
export class GatheredWrites {
  readonly #device: BlockDevice;
  readonly #buffer = new Uint8Array(MOST_BYTES);
  #start = 0;
  #length = 0;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  /** Writes bytes, which are the caller's again when this returns; behind all earlier ones. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const follows = offset === this.#start + this.#length;
    if (!follows || this.#length + bytes.length > MOST_BYTES) await this.end();
    if (bytes.length > MOST_BYTES) return this.#device.write(offset, bytes);
    if (this.#length === 0) this.#start = offset;
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Writes what is still gathered. */
  async end(): Promise<void> {
    if (this.#length === 0) return;
    await this.#device.write(this.#start, this.#buffer.subarray(0, this.#length));
    this.#length = 0;
  }
}
