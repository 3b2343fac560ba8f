import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { clusterSizeIn, type Header, hasLazyRefcounts } from '../../qcow2/index.js';
import { checkGiven, closeAfter, optionCheck } from '../../util/index.js';
import { A_SOURCE, type BlockDevice, type DeviceDescription } from '../contract/index.js';
import { backingPathOf, readHeader } from '../drivers/qcow2/io/index.js';
import type { OpenOptions } from '../open/index.js';
import { imageFileOf, openImageFile } from './image-file.js';

/** What is changed of an image in place; what is left out stays as it is. */
export interface AmendOptions extends Pick<OpenOptions, 'format' | 'signal'> {
  /** Version of the format. */
  readonly version?: 2 | 3;
  /** Let writers postpone refcounts. */
  readonly lazyRefcounts?: boolean;
  /** How the backing file is read from now on, which stays the one it is. */
  readonly backingFormat?: 'raw' | 'qcow2';
}

/** What an image says of itself after it was amended. */
export interface AmendReport {
  /** Version of the format. */
  readonly version: 2 | 3;
  /** Whether writers may postpone refcounts. */
  readonly lazyRefcounts: boolean;
  /** Absent where there is no backing file, or its format is not said. */
  readonly backingFormat?: string;
}

const checkAmendOptions = optionCheck<AmendOptions>({
  version: 'any',
  lazyRefcounts: 'flag',
  backingFormat: 'any',
  format: 'any',
  signal: 'signal',
});

/**
 * Changes how a qcow2 image keeps its disk, in place; the disk stays the same, and so do bitmaps and snapshots. Nobody else
 * may have it open. What cannot be changed in place, such as the size of clusters, takes a copy.
 *
 * @throws TypeError or RangeError for options that cannot be; LacunaError ERR_QCOW2_UNSUPPORTED where the image has what the
 * version that is wanted has not, or has no backing file; ERR_IMAGE_CHAIN where the backing file is not of that format,
 * or snapshots may show something else over it; ERR_DEVICE_FORMAT, ERR_DEVICE_LOCKED, ERR_QCOW2_CORRUPT, ERR_ABORTED.
 */
export async function amendQcow2(
  source: string | DeviceDescription,
  options: AmendOptions,
): Promise<AmendReport> {
  checkGiven('amendQcow2', 'source', source, A_SOURCE);
  checkAmendOptions('amendQcow2', options);
  const { version, lazyRefcounts, backingFormat, format, signal } = options;
  checkValues(options);
  const words = { other: 'nothing else can be amended', whole: 'amended' };
  const own = imageFileOf(source, format, words);
  const file = await openImageFile(own, { writable: true, signal });
  const amend = async () => {
    if (backingFormat === 'qcow2') await checkIsImage(file);
    const { amendHeader } = await import('../drivers/qcow2/amend/index.js');
    return reportOf(await amendHeader(file, { version, lazyRefcounts, backingFormat }, signal));
  };
  return closeAfter(amend, () => file.close());
}

function checkValues({ version, lazyRefcounts, backingFormat }: AmendOptions): void {
  if (version !== undefined && version !== 2 && version !== 3) {
    throw new RangeError(`version must be 2 or 3, not ${version}`);
  }
  if (backingFormat !== undefined && backingFormat !== 'raw' && backingFormat !== 'qcow2') {
    throw new RangeError(`backingFormat must be raw or qcow2, not ${backingFormat}`);
  }
  if (version ?? lazyRefcounts ?? backingFormat) return;
  if (lazyRefcounts !== undefined) return;
  throw new TypeError('amendQcow2: say what is changed: version, lazyRefcounts or backingFormat');
}

function reportOf(header: Header): AmendReport {
  const { version, extensions } = header;
  const { backingFormat } = extensions;
  const lazyRefcounts = hasLazyRefcounts(header);
  return { version, lazyRefcounts, ...(backingFormat !== undefined && { backingFormat }) };
}

/** A raw file that is read as an image could not be opened any more. One that is not there is nobody's loss. */
async function checkIsImage(file: BlockDevice): Promise<void> {
  const { backingFile } = await readHeader(file);
  if (backingFile === undefined || file.path === undefined) return;
  const path = backingPathOf(backingFile, file.path);
  if (path === undefined || !statSync(path, { throwIfNoEntry: false })?.isFile()) return;
  const first = new Uint8Array(512);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, first);
  } finally {
    closeSync(fd);
  }
  try {
    clusterSizeIn(first, path);
  } catch (cause) {
    const message = `The backing file "${backingFile}" of ${file.name} is not a qcow2 image, by its first bytes: it is left as it was`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: file.name, cause });
  }
}
