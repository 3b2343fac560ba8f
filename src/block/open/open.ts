import { abortedError } from '../../errors/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import { A_SOURCE, Device, type Driver } from '../contract/index.js';
import {
  checkDescription,
  type DeviceDescription,
  type ImageFormat,
  type NbdDescription,
  parseDescription,
  type Qcow2Description,
} from '../describe/index.js';
import { FileDriver } from '../drivers/file/index.js';
import { MemoryDriver } from '../drivers/memory/index.js';
import { NullDriver } from '../drivers/null/index.js';
import { type BackingName, GrowingFile } from '../drivers/qcow2/io/index.js';
import type { ChainOpening, Qcow2Driver } from '../drivers/qcow2/open/index.js';
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
  const driver = await openDriver(describe(checkDescription(given), options), options.signal);
  // A path that stands for itself, and whose format nobody has said.
  const isNamed = given.driver === 'file' && given.filename === source && format === undefined;
  if (driver instanceof FileDriver && isNamed) driver.warnings = await warnOfSignature(driver);
  return new Device(driver, { knownZero });
}

/**
 * Makes the disk of a qcow2 image larger; what is added reads as zero. Nobody else may have it open.
 *
 * @throws TypeError if this is no qcow2 image; RangeError if the disk would become smaller or too large; what
 * `openDevice` throws.
 */
export async function resizeQcow2(source: string | DeviceDescription, size: number): Promise<void> {
  checkGiven('resizeQcow2', 'source', source, A_SOURCE);
  checkGiven('resizeQcow2', 'size', size, 'bytes of the disk from now on');
  const given = typeof source === 'string' ? parseDescription(source, {}) : source;
  const description = describe(checkDescription(given), { writable: true });
  if (description.driver !== 'qcow2') {
    throw new TypeError(`driver ${description.driver}: only qcow2 images are resized`);
  }
  const driver = await openQcow2(description, { open: openBelow, above: [] });
  try {
    await driver.grow(size);
  } finally {
    await driver.close();
  }
}

/** Opens a qcow2 image to write what its disk shows already, which its bitmaps need not record. */
export async function openUnrecorded(source: Qcow2Description): Promise<Device> {
  const description = { ...source, 'read-only': false };
  return new Device(await openQcow2(description, { open: openBelow, above: [], unrecorded: true }));
}

/** Changes the name of the backing file in a qcow2 image, and nothing else; see `setBackingFile`. */
export async function setBackingName(
  { file }: Qcow2Description,
  backing: BackingName | null,
): Promise<void> {
  await using opened = await openBelow(
    { ...file, 'read-only': false },
    { open: openBelow, above: [], grows: true },
  );
  const { setBackingFile } = await import('../drivers/qcow2/open/set-backing.js');
  await setBackingFile(opened, backing);
}

/** The description as it is opened: what was asked beside it becomes a part of it. */
function describe(description: DeviceDescription, options: OpenOptions): DeviceDescription {
  const { writable = false, contexts = [], forceShare = false } = options;
  const readOnly = description['read-only'] === true || !writable;
  const shared = description['force-share'] === true || forceShare;
  if (shared && !readOnly) {
    throw new TypeError('force-share is for reading only: do not open the device for writing');
  }
  const opened = { ...description, 'read-only': readOnly, ...(shared && { 'force-share': true }) };
  if (opened.driver !== 'nbd' || contexts.length === 0) return opened;
  return { ...opened, contexts: [...new Set([...(opened.contexts ?? []), ...contexts])] };
}

function openDriver(
  description: DeviceDescription,
  signal?: AbortSignal,
): Promise<Driver> | Driver {
  switch (description.driver) {
    case 'file':
      return FileDriver.open(description);
    case 'memory':
      return new MemoryDriver(description);
    case 'nbd':
      return openNbd(description, signal);
    case 'null':
      return new NullDriver(description);
    case 'qcow2':
      return openQcow2(description, { open: openBelow, above: [], signal });
  }
}

/** An image opens its own files, and tells those that are images too what is above them. */
async function openBelow(description: DeviceDescription, opening: ChainOpening): Promise<Device> {
  const driver =
    description.driver === 'qcow2'
      ? await openQcow2(description, opening)
      : await openDriver(description, opening.signal);
  const grows = opening.grows === true && driver instanceof FileDriver && driver.grows;
  return new Device(grows ? new GrowingFile(driver) : driver);
}

/** Loaded when it is needed, as most devices are no images. */
async function openQcow2(
  description: Qcow2Description,
  opening: ChainOpening,
): Promise<Qcow2Driver> {
  const { Qcow2Driver } = await import('../drivers/qcow2/open/qcow2.js');
  return Qcow2Driver.open(description, opening);
}

/** Loaded when it is needed: with TLS and all it takes longer to load than a small file takes to copy. */
async function openNbd(description: NbdDescription, signal?: AbortSignal): Promise<Driver> {
  const { NbdDriver } = await import('../drivers/nbd/nbd.js');
  return NbdDriver.open(description, signal);
}
