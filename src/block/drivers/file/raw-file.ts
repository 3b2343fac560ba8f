import fs from 'node:fs';
import { LacunaError } from '../../../errors/index.js';
import { fileError, inodeOf } from '../../../files/index.js';
import { checkGiven, optionCheck, SIZE_LIMIT } from '../../../util/index.js';
import { A_PATH } from '../../contract/index.js';
import { guardImage } from './image-locks.js';
import { preallocate, type RawPreallocation } from './preallocate.js';

/** How a new raw file is made. */
export interface RawFileOptions {
  /** Fail with errno EEXIST where there is a file already, and follow no symbolic link. Default false. */
  readonly exclusive?: boolean;
  /**
   * The file is there, made by the caller for this: what tells it from all others, `DEVICE:INODE`. Another one of that name
   * is refused, and no symbolic link is followed.
   */
  readonly inode?: string | undefined;
  /** Permission bits of a new file, less those that the process masks. Default 0666. */
  readonly mode?: number;
  /** Space that the file takes at once. Default `off`. */
  readonly preallocation?: RawPreallocation;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

const checkRawFileOptions = optionCheck<RawFileOptions>({
  exclusive: 'flag',
  inode: 'any',
  mode: 'any',
  preallocation: 'any',
  signal: 'signal',
});

/**
 * Makes a raw file of `size` bytes that reads as zero, and takes no space unless that is asked for, or replaces the
 * content of the one that is there. Open it with `knownZero: true`.
 *
 * @throws RangeError if the size is not a whole number of bytes; LacunaError ERR_DEVICE_OPEN if the path cannot be such a file,
 *   ERR_DEVICE_LOCKED if somebody uses the one that is there, and what `preallocate` throws.
 */
export async function createRawFile(
  filename: string,
  size: number,
  options: RawFileOptions = {},
): Promise<void> {
  checkGiven('createRawFile', 'filename', filename, A_PATH);
  checkGiven('createRawFile', 'size', size, 'bytes of the file');
  checkRawFileOptions('createRawFile', options);
  const { exclusive = false, preallocation = 'off', inode, signal } = options;
  if (!Number.isSafeInteger(size) || size < 0)
    throw new RangeError(
      `a size must be a whole number of bytes, at most ${SIZE_LIMIT}, not ${size}`,
    );
  let fd: number | undefined;
  let unguard: (() => void) | undefined;
  try {
    const isReplaced = !exclusive && inode === undefined;
    if (isReplaced) checkReplaceable(filename);
    if (isReplaced) unguard = await guardImage(filename);
    fd = open(filename, options);
    fs.ftruncateSync(fd, 0);
    fs.ftruncateSync(fd, size);
    await preallocate(fd, { filename, size, preallocation, signal });
  } catch (error) {
    if (exclusive && fd !== undefined) removeOwn(filename, fd);
    if (error instanceof LacunaError || error instanceof TypeError) throw error;
    const request = { action: 'create', device: filename, making: true };
    throw fileError('ERR_DEVICE_OPEN', request, error as Error);
  } finally {
    unguard?.();
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/** Unless another file has the name by now. */
function removeOwn(filename: string, fd: number): void {
  const named = fs.lstatSync(filename, { bigint: true, throwIfNoEntry: false });
  if (named && inodeOf(named) === inodeOf(fs.fstatSync(fd, { bigint: true }))) {
    fs.rmSync(filename, { force: true });
  }
}

function open(filename: string, { exclusive, inode, mode = 0o666 }: RawFileOptions): number {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  // What has become a FIFO meanwhile would otherwise wait for its reader.
  const flags = O_WRONLY | (O_NONBLOCK ?? 0);
  if (inode === undefined) {
    const fd = fs.openSync(filename, flags | O_CREAT | (exclusive ? O_EXCL : 0), mode);
    if (fs.fstatSync(fd).isFile()) return fd;
    fs.closeSync(fd);
    throw notRegular(filename);
  }
  const fd = fs.openSync(filename, flags | (O_NOFOLLOW ?? 0));
  if (inodeOf(fs.fstatSync(fd, { bigint: true })) === inode) return fd;
  fs.closeSync(fd);
  const message = `${filename} was replaced by somebody else while it was made, and was left alone: find out by whom, then try again`;
  throw new LacunaError('ERR_FILE_CHANGED', message, { device: filename });
}

/** Cuts a raw file, or lets it grow by bytes that read as zero; open it anew to see the new size. */
export function resizeRawFile(filename: string, size: number): void {
  try {
    fs.truncateSync(filename, size);
  } catch (error) {
    throw fileError('ERR_DEVICE_IO', { action: 'resize', device: filename }, error as Error);
  }
}

/**
 * Lets a raw file grow by bytes that read as zero, and takes their space where that is asked for. Where it cannot be had the
 * file is as long as before.
 *
 * @param before bytes of the file now.
 * @throws what `preallocate` throws; LacunaError ERR_DEVICE_IO.
 */
export async function growRawFile(
  filename: string,
  before: number,
  size: number,
  {
    preallocation,
    signal,
  }: Required<Pick<RawFileOptions, 'preallocation'>> & Pick<RawFileOptions, 'signal'>,
): Promise<void> {
  resizeRawFile(filename, size);
  if (preallocation === 'off') return;
  const fd = fs.openSync(filename, fs.constants.O_WRONLY);
  try {
    await preallocate(fd, { filename, from: before, size, preallocation, signal });
  } catch (error) {
    resizeRawFile(filename, before);
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** Only a regular file can be cut to nothing; a block device would keep its bytes, a FIFO would wait. */
function checkReplaceable(filename: string): void {
  const stat = fs.statSync(filename, { throwIfNoEntry: false });
  if (stat === undefined || stat.isFile()) return;
  throw notRegular(filename);
}

function notRegular(filename: string): LacunaError {
  const message = `Cannot create ${filename}: it exists and is not a regular file`;
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EEXIST' });
}
