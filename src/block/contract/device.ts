import assert from 'node:assert/strict';
import { abortedError, LacunaError } from '../../errors/index.js';
import { Context, ExtentList, type Range } from '../../extent/index.js';
import { checkGiven, counted, optionCheck } from '../../util/index.js';
import type { BlockDevice, ExtentsOptions, RequestOptions } from './block-device.js';
import type { DeviceDescription } from './description.js';
import type {
  Capabilities,
  CopyRange,
  Driver,
  ImageDetails,
  Limits,
  Location,
  WriteOptions,
  ZeroOptions,
} from './driver.js';
import {
  checkCapabilities,
  checkDriverLimits,
  checkedLimits,
  derivedCapabilities,
} from './limits.js';
import { copyLocated } from './located-copy.js';
import {
  type DeviceOperation,
  deviceRequests,
  type ToldRequest,
  tellFailure,
  tellRequest,
} from './request-channel.js';
import { Requests } from './requests.js';
import { askStatus, askWholeStatus, checkContexts, type StatusRequest } from './status-query.js';

/** How a device is held, beside what its driver says. */
export interface DeviceOptions {
  /** Refuse everything that changes the device. Default: what the description says. */
  readonly readOnly?: boolean;
  /** The opener knows that every byte reads as zero. Default: what the driver says. */
  readonly knownZero?: boolean;
  /** What the opener has to tell a person, beside what the driver does. */
  readonly warnings?: readonly string[];
  /** The name of the node of a graph that it is the device of, which is told with its requests. */
  readonly node?: string;
}

const checkDeviceOptions = optionCheck<DeviceOptions>({
  readOnly: 'flag',
  knownZero: 'flag',
  warnings: 'any',
  node: 'any',
});

const checkRequest = optionCheck<RequestOptions>({ signal: 'signal' });
const checkWrite = optionCheck<WriteOptions>({
  fua: 'flag',
  unrecorded: 'flag',
  signal: 'signal',
});
const checkZero = optionCheck<ZeroOptions>({
  unmap: 'flag',
  fast: 'flag',
  fua: 'flag',
  unrecorded: 'flag',
  signal: 'signal',
});
const checkExtents = optionCheck<ExtentsOptions>({ contexts: 'any', signal: 'signal' });

const ALLOCATION: readonly string[] = [Context.allocation];
const NOTHING = {};

/**
 * A device as every caller holds it: the checked wrapper around a driver. Requests may have any size and
 * alignment and may run side by side; what the driver needs (see {@link Driver}) is arranged here.
 *
 * Every method rejects with a TypeError or RangeError when it is misused, with `ERR_DEVICE_CLOSED` after
 * `close`, with `ERR_DEVICE_UNSUPPORTED` where `capabilities` deny it, and with `ERR_ABORTED` when the signal
 * has fired before a piece of it begins. A range of length 0 is valid and does nothing.
 *
 * A change that was given up may still be carried out, as long as the device is open and even behind later ones:
 * do not change its range again through the same opening. Nothing outside its range is touched.
 *
 * Blocks of `limits.minimum` bytes that two openings of one device change in part at the same time may lose a
 * change, so let several openings divide a device at multiples of it.
 */
export class Device implements BlockDevice {
  /** How a person would name it: a path or a URI. */
  readonly name: string;
  /** Opens the same device again, in this thread or another, for as long as this opening lasts; see {@link Driver}. */
  readonly description?: DeviceDescription;
  /** The file of this machine that holds its bytes as they are, if one does. */
  readonly path?: string;
  /** Bytes. */
  readonly size: number;
  /** What requests should keep to in order to be fast; none of it must be kept to. */
  readonly limits: Limits;
  /** What a person should know of what is read here, although it could be opened: a damaged image, say. */
  readonly warnings: readonly string[];
  /**
   * Ranges that the files of an image do not have any more, and that read as zero because `rescue` of its description
   * says so; in order. There are none in any other device: what is missing is an error.
   */
  readonly missing: readonly Range[];
  readonly #node: string | undefined;
  readonly #driver: Driver;
  readonly #requests: Requests;
  #capabilities: Required<Capabilities>;
  #inFlight = 0;
  #whenIdle?: () => void;
  #closing?: Promise<void>;

  constructor(driver: Driver, options: DeviceOptions = {}) {
    checkGiven('Device', 'driver', driver, 'an object with the methods of a Driver');
    checkDeviceOptions('Device', options);
    checkDriverLimits(`${driver.name}: limits`, driver.limits);
    checkCapabilities(`${driver.name}: capabilities`, driver.capabilities);
    const { size, description } = driver;
    assert(Number.isSafeInteger(size) && size >= 0, `${driver.name}: size ${size} is no size`);
    const readOnly = options.readOnly ?? description?.['read-only'] ?? false;
    const capabilities = derivedCapabilities(driver, readOnly);
    const knownZero = options.knownZero ?? capabilities.knownZero;
    this.name = driver.name;
    this.description = description;
    if (driver.path !== undefined) this.path = driver.path;
    this.size = size;
    this.limits = checkedLimits(driver.limits);
    this.warnings = [...(driver.warnings ?? []), ...(options.warnings ?? [])];
    this.missing = driver.missing ?? [];
    this.#node = options.node;
    this.#driver = driver;
    this.#capabilities = { ...capabilities, knownZero };
    this.#requests = new Requests(driver, this.#capabilities, (signal) => this.#check(signal));
  }

  /** First byte behind what is there: `size`, but less where a file grows up to it. */
  get end(): number {
    return this.#driver.end ?? this.size;
  }

  /** What an image file says of itself; absent where the device is none. */
  get details(): ImageDetails | undefined {
    return this.#driver.details;
  }

  /** What this device can do. `knownZero` ends with the first write or discard made through this opening. */
  get capabilities(): Required<Capabilities> {
    return this.#capabilities;
  }

  /** Fills `target` with the bytes at `offset`. */
  async read(offset: number, target: Uint8Array, options?: RequestOptions): Promise<void> {
    if (options !== undefined) checkRequest('read', options);
    this.#check(options?.signal);
    this.#checkRange(offset, byteLength(target, 'target'));
    if (target.byteLength === 0) return;
    if (deviceRequests.hasSubscribers) {
      const read = () => this.#requests.read(offset, target, options?.signal);
      return this.#run('read', offset, target.byteLength, read);
    }
    this.#inFlight++;
    try {
      await this.#requests.read(offset, target, options?.signal);
    } finally {
      this.#requestDone();
    }
  }

  /** Stores `source` at `offset`. */
  async write(offset: number, source: Uint8Array, options: WriteOptions = NOTHING): Promise<void> {
    checkWrite('write', options);
    this.#check(options.signal);
    this.#checkRange(offset, byteLength(source, 'source'));
    this.#checkWritable();
    if (source.byteLength === 0) return;
    this.#forgetZero();
    if (deviceRequests.hasSubscribers) {
      const write = () => this.#requests.write(offset, source, options);
      return this.#run('write', offset, source.byteLength, write);
    }
    this.#inFlight++;
    try {
      await this.#requests.write(offset, source, options);
    } finally {
      this.#requestDone();
    }
  }

  /** @internal See {@link Driver.writeNow}; false where the driver has to wait. Whole units of the driver only. */
  writeNow(offset: number, source: Uint8Array): boolean {
    this.#check();
    this.#checkRange(offset, source.byteLength);
    this.#checkWritable();
    if (this.#driver.writeNow === undefined) return false;
    this.#forgetZero();
    if (deviceRequests.hasSubscribers) this.#writeNowTold(offset, source);
    else this.#driver.writeNow(offset, source);
    return true;
  }

  /** Makes a range read as zero, by writing zeroes where the driver knows no better and `fast` allows it. */
  async zero(offset: number, length: number, options: ZeroOptions = NOTHING): Promise<void> {
    checkZero('zero', options);
    this.#check(options.signal);
    this.#checkRange(offset, length);
    this.#checkWritable();
    if (options.fast === true && !this.#capabilities.fastZero) this.#refuse('a fast zero');
    if (length === 0) return;
    await this.#run('zero', offset, length, () => this.#requests.zero(offset, length, options));
  }

  /**
   * Says that a range is not needed any more; what it reads as afterwards is undefined. Blocks that are
   * needed in part stay as they are.
   */
  async discard(offset: number, length: number, options: RequestOptions = NOTHING): Promise<void> {
    checkRequest('discard', options);
    this.#check(options.signal);
    this.#checkRange(offset, length);
    this.#checkWritable();
    if (!this.#capabilities.discard) this.#refuse('discard');
    if (length === 0) return;
    this.#forgetZero();
    const discard = () => this.#requests.discard(offset, length, options.signal);
    await this.#run('discard', offset, length, discard);
  }

  /** Makes every write that has completed durable; does nothing where the device has no way to. */
  async flush(options: RequestOptions = NOTHING): Promise<void> {
    checkRequest('flush', options);
    this.#check(options.signal);
    if (!this.#capabilities.flush) return;
    await this.#run('flush', 0, 0, () => this.#driver.flush!(options.signal));
  }

  /** The status of the whole of a range: one list for each context, in the order asked. */
  async extents(
    offset: number,
    length: number,
    options: ExtentsOptions = NOTHING,
  ): Promise<ExtentList[]> {
    const request = this.#statusRequest(offset, length, options);
    if (length === 0) return request.contexts.map(() => new ExtentList(offset));
    return askWholeStatus((part) => {
      this.#check(part.signal);
      return this.#run('status', part.offset, part.length, () => this.#ask(part));
    }, request);
  }

  /**
   * What the device answers at once about a range: lists that begin at `offset`, say something of at least
   * one byte, and may end before the range does. For callers that ask for the rest in their own time.
   */
  async someExtents(
    offset: number,
    length: number,
    options: ExtentsOptions = NOTHING,
  ): Promise<ExtentList[]> {
    const request = this.#statusRequest(offset, length, options);
    if (length === 0) return request.contexts.map(() => new ExtentList(offset));
    return this.#run('status', offset, length, () => this.#ask(request));
  }

  /**
   * Copies a range from another device without the bytes passing through this process, but for those that are
   * kept nowhere as they are, such as compressed ones.
   *
   * @returns false where the two devices cannot; then read and write instead.
   */
  async copyFrom(
    source: BlockDevice,
    range: CopyRange,
    options: RequestOptions = NOTHING,
  ): Promise<boolean> {
    checkRequest('copyFrom', options);
    const { targetOffset, length } = range;
    if (source instanceof Device) source.#checkSource(range, options);
    this.#check(options.signal);
    this.#checkRange(targetOffset, length);
    this.#checkWritable();
    if (length === 0) return true;
    if (this.#driver.copyFrom === undefined) return false;
    this.#forgetZero();
    const copy = this.#copier(source, range, options);
    if (copy === undefined) return false;
    const { sourceOffset } = range;
    return this.#run('copy', targetOffset, length, () => {
      // Closing the source waits for it too.
      return source instanceof Device ? source.#run('copy', sourceOffset, length, copy) : copy();
    });
  }

  #checkSource({ sourceOffset, length }: CopyRange, options: RequestOptions): void {
    this.#check(options.signal);
    this.#checkRange(sourceOffset, length);
  }

  /** How a range is copied from a device; undefined where nobody may know where that keeps its bytes. */
  #copier(
    source: BlockDevice,
    range: CopyRange,
    options: RequestOptions,
  ): (() => Promise<boolean>) | undefined {
    if (source instanceof Device && source.#driver.locate === undefined) {
      return () => this.#requests.copyFrom(source.#driver, range, options.signal);
    }
    const { locate } = source;
    if (locate === undefined) return undefined;
    const reader = {
      locate: locate.bind(source),
      read: source.read.bind(source),
    };
    return () =>
      copyLocated({ source: reader, target: this, requests: this.#requests }, range, options);
  }

  /** Where bytes are kept as they are, and how many lie there one behind the other; see {@link Driver.locate}. */
  async locate(offset: number, length: number): Promise<Location> {
    this.#check();
    this.#checkRange(offset, length);
    if (this.#driver.locate === undefined) return { driver: this.#driver, offset, length };
    return this.#counted(() => this.#driver.locate!(offset, length));
  }

  /**
   * Waits for the requests in flight and closes the device. Of a request that is made of several pieces only
   * the one in flight is finished; the request then fails with `ERR_DEVICE_CLOSED`. Closing again is harmless.
   */
  close(): Promise<void> {
    this.#closing ??= this.#shut();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #shut(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await this.#requests.close();
    await this.#driver.close();
  }

  #run<T>(
    operation: DeviceOperation,
    offset: number,
    length: number,
    request: () => Promise<T>,
  ): Promise<T> {
    if (!deviceRequests.hasSubscribers) return this.#counted(request);
    return this.#told(this.#asked(operation, offset, length), request);
  }

  async #told<T>(asked: ToldRequest, request: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    this.#inFlight++;
    try {
      const result = await request();
      tellRequest(asked, begun);
      return result;
    } catch (error) {
      tellFailure(asked, begun, error);
      throw error;
    } finally {
      this.#requestDone();
    }
  }

  #writeNowTold(offset: number, source: Uint8Array): void {
    const asked = this.#asked('write', offset, source.byteLength);
    const begun = performance.now();
    try {
      this.#driver.writeNow!(offset, source);
      tellRequest(asked, begun);
    } catch (error) {
      tellFailure(asked, begun, error);
      throw error;
    }
  }

  #asked(operation: DeviceOperation, offset: number, length: number): ToldRequest {
    return { device: this, node: this.#node, operation, offset, length };
  }

  async #counted<T>(request: () => Promise<T>): Promise<T> {
    this.#inFlight++;
    try {
      return await request();
    } finally {
      this.#requestDone();
    }
  }

  #requestDone(): void {
    this.#inFlight--;
    if (this.#inFlight === 0) this.#whenIdle?.();
  }

  #ask(request: StatusRequest): Promise<ExtentList[]> {
    return askStatus(this.#driver, this.#capabilities.contexts, request);
  }

  #statusRequest(offset: number, length: number, options: ExtentsOptions): StatusRequest {
    checkExtents('extents', options);
    const { contexts = ALLOCATION, signal } = options;
    this.#check(signal);
    this.#checkRange(offset, length);
    checkContexts(this.#driver, this.#capabilities.contexts, contexts);
    return { offset, length, contexts, signal };
  }

  #check(signal?: AbortSignal): void {
    if (this.#closing !== undefined) {
      const message = `${this.name} is closed: open it again to use it`;
      throw new LacunaError('ERR_DEVICE_CLOSED', message, { device: this.name });
    }
    if (signal?.aborted) throw abortedError(signal);
  }

  #checkRange(offset: number, length: number): void {
    if (typeof offset !== 'number') throw new TypeError(`offset must be a number, not ${offset}`);
    if (typeof length !== 'number') throw new TypeError(`length must be a number, not ${length}`);
    const inside = offset >= 0 && length >= 0 && length <= this.size - offset;
    if (inside && Number.isSafeInteger(offset) && Number.isSafeInteger(length)) return;
    const range = `${counted(length, 'byte')} at ${offset}`;
    throw new RangeError(
      `${range}: no range of whole bytes inside ${this.name}, size ${this.size}`,
    );
  }

  #checkWritable(): void {
    if (!this.#capabilities.write) this.#refuse('writing: it is read-only');
  }

  /** Tells this opening that another one has changed the device. */
  changedElsewhere(): void {
    this.#forgetZero();
  }

  /** @internal See {@link Driver.writesAgain}. */
  writesAgain(): void {
    this.#driver.writesAgain?.();
  }

  /** @internal See {@link Driver.forgotten}. */
  get forgotten(): LacunaError | undefined {
    return this.#driver.forgotten;
  }

  #forgetZero(): void {
    if (!this.#capabilities.knownZero) return;
    this.#capabilities = { ...this.#capabilities, knownZero: false };
  }

  #refuse(what: string): never {
    const message = `${this.name} does not support ${what}`;
    throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
  }
}

function byteLength(bytes: Uint8Array, name: string): number {
  if (bytes instanceof Uint8Array) return bytes.byteLength;
  throw new TypeError(
    `${name} must be a Uint8Array, not ${bytes === null ? 'null' : typeof bytes}`,
  );
}
