import type {
  Capabilities,
  DeviceDescription,
  Driver,
  Limits,
  WriteOptions,
  ZeroOptions,
} from '../contract/index.js';

/**
 * A file that grows where it is written behind its end, and reads as zero there: as an image's file must. As a device it
 * has the largest size there is.
 */
export class GrowingFile implements Driver {
  readonly name: string;
  readonly description?: DeviceDescription;
  readonly path?: string;
  readonly grows = true;
  readonly limits: Limits;
  readonly capabilities: Capabilities;
  readonly #driver: Driver;
  #size = Number.MAX_SAFE_INTEGER;
  #end: number;

  /** Lets a file grow, also one that has grown before. */
  static over(driver: Driver): GrowingFile {
    if (!(driver instanceof GrowingFile)) return new GrowingFile(driver);
    driver.#size = Number.MAX_SAFE_INTEGER;
    return driver;
  }

  /** @param driver a file that takes writes behind its end, and that nobody else changes meanwhile. */
  constructor(driver: Driver) {
    this.name = driver.name;
    this.description = driver.description;
    if (driver.path !== undefined) this.path = driver.path;
    this.limits = driver.limits;
    this.capabilities = {
      ...driver.capabilities,
      contexts: [],
      exactStatus: false,
      knownZero: false,
    };
    this.#driver = driver;
    this.#end = driver.size;
  }

  get size(): number {
    return this.#size;
  }

  /** See {@link Driver.setWritable}. */
  get setWritable(): Driver['setWritable'] {
    return this.#driver.setWritable?.bind(this.#driver);
  }

  /** A file that grows is for one image alone. */
  get lock(): Driver['lock'] {
    return this.#size === Number.MAX_SAFE_INTEGER ? undefined : this.#driver.lock;
  }

  /** The file as it is when it grows no more: with the size that it has now. */
  ended(): Driver {
    if (this.#end === this.#driver.size) return this.#driver;
    this.#size = this.#end;
    return this;
  }

  get end(): number {
    return this.#end;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(target.byteLength, this.#end - offset));
    if (there < target.byteLength) target.fill(0, there);
    if (there > 0) await this.#driver.read(offset, target.subarray(0, there));
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    await this.#driver.write!(offset, source, options);
    this.#end = Math.max(this.#end, offset + source.byteLength);
  }

  /** Inside the file only, and only where the driver can. */
  get writeNow(): Driver['writeNow'] {
    return this.#driver.writeNow?.bind(this.#driver);
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const there = Math.min(length, this.#end - offset);
    if (there > 0) await this.#driver.zero!(offset, there, options);
  }

  async discard(offset: number, length: number): Promise<void> {
    const there = Math.min(length, this.#end - offset);
    if (there > 0) await this.#driver.discard!(offset, there);
  }

  async flush(): Promise<void> {
    await this.#driver.flush?.();
  }

  close(): Promise<void> {
    return this.#driver.close();
  }
}
