import fs from 'node:fs';
import { LacunaError } from '../errors/index.js';
import { fileError } from './file-error.js';

/**
 * Makes a raw file of `size` bytes that reads as zero and takes no space, or replaces the content of the one that
 * is there. Open it with `knownZero: true`.
 *
 * @throws RangeError if the size is no size; LacunaError ERR_DEVICE_OPEN if the path cannot be such a file.
 */
export async function createRawFile(filename: string, size: number): Promise<void> {
  if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`${size} is no size in bytes`);
  let fd: number | undefined;
  try {
    checkReplaceable(filename);
    fd = fs.openSync(filename, fs.constants.O_WRONLY | fs.constants.O_CREAT, 0o666);
    fs.ftruncateSync(fd, 0);
    fs.ftruncateSync(fd, size);
  } catch (error) {
    if (error instanceof LacunaError) throw error;
    throw fileError('ERR_DEVICE_OPEN', { action: 'create', device: filename }, error as Error);
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
