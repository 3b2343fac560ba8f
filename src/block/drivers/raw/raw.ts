import { LacunaError } from '../../../errors/index.js';
import { ExtentList } from '../../../extent/index.js';
import type {
  BlockDevice,
  Capabilities,
  Driver,
  Limits,
  Opening,
  Range,
  RequestOptions,
  WriteOptions,
  ZeroOptions,
} from '../../contract/index.js';
import type { RawDescription } from './description.js';

/** As what the device below is used. */
const PART = { key: 'file', role: 'part' } as const;

/** A part of a device. It does not tell where its bytes lie, so that what copies inside the system asks the device itself. */
export class RawDriver implements Driver {
  readonly name: string;
  readonly description?: RawDescription;
  readonly size: number;
  readonly limits: Limits;
  readonly capabilities: Capabilities;
  readonly warnings: readonly string[];
  readonly missing: readonly Range[];
  readonly #device: BlockDevice;
  readonly #start: number;

  private constructor(device: BlockDevice, description: RawDescription) {
    const { offset = 0, size = device.size - offset } = description;
    this.name = device.name;
    // Another opening must have the same size, whatever becomes of the device.
    if (device.description !== undefined) {
      this.description = { ...description, size, file: device.description };
    }
    this.size = size;
    this.limits = device.limits;
    this.capabilities = device.capabilities;
    this.warnings = device.warnings;
    this.missing = within(device.missing, offset, size);
    this.#device = device;
    this.#start = offset;
  }

  /**
   * @throws LacunaError ERR_DEVICE_SHORT where the device ends before the part does; RangeError where a part that is written
   * begins inside what the device writes at least.
   */
  static async open(description: RawDescription, opening: Opening): Promise<RawDriver> {
    const { file, 'read-only': readOnly = false, 'force-share': forceShare } = description;
    const below = {
      ...file,
      'read-only': readOnly || file['read-only'] === true,
      ...(forceShare && { 'force-share': true }),
    };
    const device = await opening.open(below, { ...opening, grows: false, as: PART });
    try {
      checkPlace(device, description);
      return new RawDriver(device, description);
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#device.read(this.#start + offset, target, told(signal));
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    return this.#device.write(this.#start + offset, source, options);
  }

  zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    return this.#device.zero(this.#start + offset, length, options);
  }

  discard(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    return this.#device.discard(this.#start + offset, length, told(signal));
  }

  flush(signal?: AbortSignal): Promise<void> {
    return this.#device.flush(told(signal));
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const asked = { contexts, ...told(signal) };
    const lists = await this.#device.someExtents(this.#start + offset, length, asked);
    return lists.map((list) => {
      const moved = new ExtentList(list.offset - this.#start);
      for (const extent of list) moved.push(extent.length, extent.flags);
      return moved;
    });
  }

  writesAgain(): void {
    this.#device.writesAgain?.();
  }

  get forgotten(): LacunaError | undefined {
    return this.#device.forgotten;
  }

  close(): Promise<void> {
    return this.#device.close();
  }
}

function told(signal: AbortSignal | undefined): RequestOptions {
  return signal === undefined ? {} : { signal };
}

function checkPlace(device: BlockDevice, { offset = 0, size }: RawDescription): void {
  const { name, capabilities, limits } = device;
  const end = offset + (size ?? 0);
  if (offset > device.size || end > device.size) {
    const part = size === undefined ? `begins at ${offset}` : `goes from ${offset} to ${end}`;
    const message = `${name} has ${device.size} bytes, and the part that is wanted ${part}: name one inside it, or make it larger ("lacuna resize")`;
    throw new LacunaError('ERR_DEVICE_SHORT', message, { device: name, offset });
  }
  // Two who write parts of one unit at the same time would undo each other's.
  if (!capabilities.write || offset % limits.minimum === 0) return;
  throw new RangeError(
    `${name} writes ${limits.minimum} bytes at least, so that what is written must begin at a multiple of that, not at ${offset}`,
  );
}

/** The ranges of a device that lie in a part of it, as that counts. */
function within(ranges: readonly Range[], start: number, size: number): Range[] {
  const found: Range[] = [];
  for (const { offset, length } of ranges) {
    const from = Math.max(0, offset - start);
    const end = Math.min(size, offset + length - start);
    if (from < end) found.push({ offset: from, length: end - from });
  }
  return found;
}
