import type { DirtyBitmaps } from '../../bitmap/index.js';
import {
  type BlockDevice,
  Device,
  type Driver,
  passThrough,
  type WriteOptions,
  type ZeroOptions,
} from '../../block/index.js';
import { checkGiven } from '../../util/index.js';

/** Who is told of every change before it is made; the change waits, and is not made where this fails. */
export interface ChangeLog {
  record(offset: number, length: number): Promise<void> | void;
  /** The same for a change that bitmaps do not note. */
  pass?(offset: number, length: number): void;
}

/**
 * Stands before a driver and notes each change before it is passed on: what has been noted stays so when the change fails,
 * since a part of it may have been made. It tells neither where bytes lie nor copies inside the system: both would
 * go around it.
 */
export class Recorder implements Driver {
  readonly #driver: Driver;
  readonly #log: ChangeLog;

  constructor(driver: Driver, log: ChangeLog) {
    this.#driver = driver;
    this.#log = log;
  }

  get name() {
    return this.#driver.name;
  }

  get path() {
    return this.#driver.path;
  }

  get size() {
    return this.#driver.size;
  }

  get limits() {
    return this.#driver.limits;
  }

  get capabilities() {
    return this.#driver.capabilities;
  }

  get details() {
    return this.#driver.details;
  }

  get warnings() {
    return this.#driver.warnings;
  }

  get missing() {
    return this.#driver.missing;
  }

  get end() {
    return this.#driver.end;
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#driver.read(offset, target, signal);
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const noted = this.#note(offset, source.byteLength, options);
    if (noted !== undefined) await noted;
    await this.#driver.write!(offset, source, options);
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const noted = this.#note(offset, length, options);
    if (noted !== undefined) await noted;
    await this.#driver.zero!(offset, length, options);
  }

  async discard(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    const noted = this.#log.record(offset, length);
    if (noted !== undefined) await noted;
    await this.#driver.discard!(offset, length, signal);
  }

  async flush(signal?: AbortSignal): Promise<void> {
    await this.#driver.flush?.(signal);
  }

  extents(offset: number, length: number, contexts: readonly string[], signal?: AbortSignal) {
    return this.#driver.extents!(offset, length, contexts, signal);
  }

  whyNoContext(context: string) {
    return this.#driver.whyNoContext?.(context);
  }

  writesAgain(): void {
    this.#driver.writesAgain?.();
  }

  get forgotten() {
    return this.#driver.forgotten;
  }

  close(): Promise<void> {
    return this.#driver.close();
  }

  #note(offset: number, length: number, { unrecorded }: { unrecorded?: boolean }) {
    return unrecorded ? this.#log.pass?.(offset, length) : this.#log.record(offset, length);
  }
}

/**
 * A device whose changes are noted in dirty bitmaps before they are made, for programs that write a disk themselves:
 *
 *     const bitmaps = new DirtyBitmaps({ size: device.size });
 *     const disk = new RecordingDevice(device, bitmaps);
 *     bitmaps.add({ name: 'since-monday' });
 *     await disk.write(0, bytes);       // 'since-monday' is dirty there, even where this fails
 *
 * All that changes the disk must go through it. It has no description, so nothing opens it a second time. A write that is under
 * way while a bitmap is added, cleared or enabled may be missing in that: let none be.
 */
export class RecordingDevice extends Device {
  /**
   * @param device is closed with this one.
   * @throws RangeError where the bitmaps are for a disk of another size.
   */
  constructor(device: BlockDevice, bitmaps: DirtyBitmaps) {
    checkGiven('RecordingDevice', 'device', device, 'the open device that is written');
    checkGiven('RecordingDevice', 'bitmaps', bitmaps, 'the DirtyBitmaps that note it');
    if (device.size !== bitmaps.size) {
      const sizes = `${bitmaps.size} bytes, and ${device.name} has ${device.size}`;
      throw new RangeError(`the bitmaps are for a disk of ${sizes}: make them for this one`);
    }
    const below = passThrough(device, (_request, pass) => pass());
    super(new Recorder(below, bitmaps));
  }
}
