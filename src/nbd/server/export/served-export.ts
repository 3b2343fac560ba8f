import { Context } from '../../../extent/index.js';
import { alignDown, isPowerOfTwo } from '../../../util/index.js';
import { type BlockSizes, ExportFlag, encodeText, MAX_STRING_BYTES } from '../../wire/index.js';
import type { NbdExportBitmap, NbdExportDevice, NbdExportOptions } from './export.js';

/** A metadata context of an export. Ids are the same on every connection, which nobody may rely on. */
export interface ServedContext {
  readonly id: number;
  readonly name: string;
  /** Where it comes from; without one, the device answers. */
  readonly bitmap?: NbdExportBitmap;
}

/** "Block size constraints": the minimum is at most this. */
const LARGEST_MINIMUM = 65536;
const LEAST_PREFERRED = 512;

/** An export as connections use it: checked, and translated into the protocol's numbers. */
export class ServedExport {
  readonly name: string;
  readonly description: string;
  readonly device: NbdExportDevice;
  readonly size: number;
  readonly readOnly: boolean;
  readonly contexts: readonly ServedContext[];
  readonly blockSizes: BlockSizes;
  /** It costs little to look for holes, so that a read may be answered with them. */
  readonly tellsHoles: boolean;

  /** @throws TypeError or RangeError when it cannot be served. */
  constructor(options: NbdExportOptions, maxPayload: number) {
    const { name, description = '', device, readOnly = false, bitmaps = {} } = options;
    encodeText(name, 'the export name');
    encodeText(description, 'the export description');
    this.name = name;
    this.description = description;
    this.device = device;
    this.size = device.size;
    this.readOnly = readOnly || !device.capabilities.write;
    this.contexts = contextsOf(device, bitmaps);
    this.blockSizes = blockSizesOf(device, maxPayload);
    const { exactStatus, contexts } = device.capabilities;
    this.tellsHoles = exactStatus && contexts.includes(Context.allocation);
  }

  /**
   * The transmission flags. One opening of the device serves all connections, so what one has flushed, every
   * other one reads: that is all that CAN_MULTI_CONN asks for.
   */
  flags(structured: boolean, extended: boolean): number {
    const { fastZero, discard, flush } = this.device.capabilities;
    const { hasFlags, multiConnection, cache, readOnly, dontFragment } = ExportFlag;
    let flags = hasFlags | multiConnection | cache;
    if (structured) flags |= dontFragment;
    if (extended) flags |= ExportFlag.blockStatusPayload;
    // Nothing to flush is flushed at once, and clients look for the flag on read-only exports too.
    if (flush || this.readOnly) flags |= ExportFlag.flush | ExportFlag.fua;
    if (this.readOnly) return flags | readOnly;
    flags |= ExportFlag.writeZeroes;
    if (fastZero) flags |= ExportFlag.fastZero;
    if (discard) flags |= ExportFlag.trim;
    return flags;
  }
}

function contextsOf(
  device: Pick<NbdExportDevice, 'size' | 'capabilities'>,
  bitmaps: Readonly<Record<string, NbdExportBitmap>>,
): ServedContext[] {
  const fromDevice = device.capabilities.contexts.filter((name) => name !== Context.allocation);
  const contexts = [Context.allocation, ...fromDevice].map(
    (name, id): ServedContext => ({ id, name }),
  );
  for (const [name, bitmap] of Object.entries(bitmaps)) {
    if (bitmap.size !== device.size) {
      throw new RangeError(
        `the bitmap "${name}" is for ${bitmap.size} bytes, the device has ${device.size}`,
      );
    }
    const context = `${Context.dirtyPrefix}${name}`;
    if (encodeText(context, 'a context name').length > MAX_STRING_BYTES || name === '') {
      throw new TypeError(`"${name}" cannot be the name of a bitmap`);
    }
    if (contexts.some((other) => other.name === context)) {
      throw new TypeError(`there are two contexts with the name "${context}"`);
    }
    contexts.push({ id: contexts.length, name: context, bitmap });
  }
  return contexts;
}

/**
 * The device takes requests of any alignment, so the sizes are advice. A size that is no multiple of the minimum
 * would make its tail unreachable for clients that obey.
 */
function blockSizesOf(
  { size, limits }: Pick<NbdExportDevice, 'size' | 'limits'>,
  maximum: number,
): BlockSizes {
  const wanted = Math.min(limits.minimum, LARGEST_MINIMUM);
  const minimum = isPowerOfTwo(wanted) && size % wanted === 0 ? wanted : 1;
  const largest = 2 ** Math.floor(Math.log2(maximum));
  const preferred = Math.min(Math.max(limits.preferred, minimum, LEAST_PREFERRED), largest);
  return { minimum, preferred, maximum: alignDown(maximum, minimum) };
}
