import fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { LacunaError } from '../errors/index.js';
import { fileError } from './file-error.js';
import { guardImage } from './image-locks.js';
import { preallocate, type RawPreallocation } from './preallocate.js';

const fsync = promisify(fs.fsync);

/** How a new raw file is made. */
export interface RawFileOptions {
  /** Fail with errno EEXIST where there is a file already, and follow no symbolic link. Default false. */
  readonly exclusive?: boolean;
  /** Permission bits of a new file, less those that the process masks. Default 0666. */
  readonly mode?: number;
  /** Space that the file takes at once. Default `off`. */
  readonly preallocation?: RawPreallocation;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes a raw file of `size` bytes that reads as zero, and takes no space unless that is asked for, or replaces the
 * content of the one that is there. Open it with `knownZero: true`.
 *
 * @throws RangeError if the size is no size; LacunaError ERR_DEVICE_OPEN if the path cannot be such a file,
 *   ERR_DEVICE_LOCKED if somebody uses the one that is there, and what `preallocate` throws.
 */
export async function createRawFile(
  filename: string,
  size: number,
  { exclusive = false, mode = 0o666, preallocation = 'off', signal }: RawFileOptions = {},
): Promise<void> {
  if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`${size} is no size in bytes`);
  const { O_WRONLY, O_CREAT, O_EXCL } = fs.constants;
  let fd: number | undefined;
  let unguard: (() => void) | undefined;
  try {
    if (!exclusive) checkReplaceable(filename);
    if (!exclusive) unguard = await guardImage(filename);
    fd = fs.openSync(filename, O_WRONLY | O_CREAT | (exclusive ? O_EXCL : 0), mode);
    fs.ftruncateSync(fd, 0);
    fs.ftruncateSync(fd, size);
    await preallocate(fd, { filename, size, preallocation, signal });
  } catch (error) {
    if (exclusive && fd !== undefined) fs.rmSync(filename, { force: true });
    if (error instanceof LacunaError || error instanceof TypeError) throw error;
    const request = { action: 'create', device: filename, making: true };
    throw fileError('ERR_DEVICE_OPEN', request, error as Error);
  } finally {
    unguard?.();
    if (fd !== undefined) fs.closeSync(fd);
  }
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
 * Makes the name of a file durable, which is kept by the folder that holds it: flushing a new or renamed file saves
 * its bytes, but not the way to them.
 */
export async function syncFolder(filename: string): Promise<void> {
  const folder = dirname(filename);
  let fd: number | undefined;
  try {
    fd = fs.openSync(folder, fs.constants.O_RDONLY);
    await fsync(fd);
  } catch (error) {
    throw fileError('ERR_DEVICE_IO', { action: 'sync', device: folder }, error as Error);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}

/** Only a regular file can be cut to nothing; a block device would keep its bytes, a FIFO would wait. */
function checkReplaceable(filename: string): void {
  const stat = fs.statSync(filename, { throwIfNoEntry: false });
  if (stat === undefined || stat.isFile()) return;
  const message = `Cannot create ${filename}: it exists and is not a regular file`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EEXIST' });
}
