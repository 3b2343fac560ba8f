import { abortedError } from '../../errors/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import {
  A_SOURCE,
  type BlockDevice,
  Device,
  type DeviceDescription,
  type Driver,
  type Opening,
  plainFile,
} from '../contract/index.js';
import {
  changeHolder,
  checkDescription,
  type ImageFormat,
  kindOf,
  parseDescription,
  takesKey,
} from '../describe/index.js';
import { GrowingFile } from '../filters/index.js';
import { warnOfSignature } from './image-signature.js';

/** How a device is opened, beside what its description says. */
export interface OpenOptions {
  /** Open for writing. Default false; a description that says `read-only` wins. */
  readonly writable?: boolean;
  /** Metadata contexts beside `base:allocation` and those of the description. */
  readonly contexts?: readonly string[];
  /** The format of what is inside a path; see `parseDescription`. */
  readonly format?: ImageFormat;
  /** The caller knows that every byte reads as zero, because it has just made the device. */
  readonly knownZero?: boolean;
  /** Read although others may be writing; see `force-share` of a description. */
  readonly forceShare?: boolean;
  /** Ends opening; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

const checkOpenOptions = optionCheck<OpenOptions>({
  writable: 'flag',
  contexts: 'any',
  format: 'any',
  knownZero: 'flag',
  forceShare: 'flag',
  signal: 'signal',
});

/**
 * Opens a device from its description, or from the text that a command line has for it. Another opening, in
 * this thread or a worker, is made from `device.description`.
 *
 * @throws TypeError if the description is not valid; LacunaError ERR_DEVICE_OPEN, ERR_DEVICE_LOCKED,
 * ERR_DEVICE_FORMAT, or that of an NBD server, if the device cannot be opened.
 */
export async function openDevice(
  source: string | DeviceDescription,
  options: OpenOptions = {},
): Promise<Device> {
  checkGiven('openDevice', 'source', source, A_SOURCE);
  checkOpenOptions('openDevice', options);
  if (options.signal?.aborted) throw abortedError(options.signal);
  const { format, knownZero } = options;
  const given = typeof source === 'string' ? parseDescription(source, { format }) : source;
  const opening = { open: openBelow, above: [], signal: options.signal };
  const driver = await openDriver(describeOpened(checkDescription(given), options), opening);
  // A path that stands for itself, and whose format nobody has said.
  const isNamed = plainFile(given)?.filename === source && format === undefined;
  const warnings = isNamed ? await warnOfSignature(driver) : [];
  return new Device(driver, { knownZero, warnings });
}

/** The description as it is opened: what was asked beside it becomes a part of it. */
export function describeOpened(
  description: DeviceDescription,
  options: OpenOptions,
): DeviceDescription {
  const { writable = false, contexts = [], forceShare = false } = options;
  const readOnly = description['read-only'] === true || !writable;
  const shared = description['force-share'] === true || forceShare;
  if (shared && !readOnly) {
    throw new TypeError('force-share is for reading only: do not open the device for writing');
  }
  const opened = { ...description, 'read-only': readOnly, ...(shared && { 'force-share': true }) };
  if (contexts.length === 0) return opened;
  return changeHolder(opened, (own) => {
    if (!takesKey(own, 'contexts')) return own;
    return { ...own, contexts: [...new Set([...(own.contexts ?? []), ...contexts])] };
  });
}

/** @internal Opens what stands below the checked wrapper. */
export function openDriver(
  description: DeviceDescription,
  opening: Opening,
): Promise<Driver> | Driver {
  return kindOf(description).open(description, opening);
}

/** Opens a device for one that lies above it. */
export async function openBelow(
  description: DeviceDescription,
  opening: Opening,
): Promise<BlockDevice> {
  const driver = await openDriver(description, opening);
  return new Device(opening.grows && driver.grows ? new GrowingFile(driver) : driver);
}
