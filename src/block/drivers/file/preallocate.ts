import fs from 'node:fs';
import { promisify } from 'node:util';
import { LacunaError, throwIfAborted } from '../../../errors/index.js';
import { fileError } from '../../../files/index.js';
import { errnoName, systemCalls } from './ffi.js';

const write = promisify(fs.write);

/**
 * The space that a new raw file takes before anything is written to it, by the names of qemu-img: none (`off`), all of it
 * as the file system allocates it (`falloc`), or all of it with zeroes written (`full`).
 */
export type RawPreallocation = 'off' | 'falloc' | 'full';

const NAMES: readonly string[] = ['off', 'falloc', 'full'] satisfies RawPreallocation[];

/** Between two looks at the signal. */
const FALLOC_STEP = 64 * 2 ** 30;
const FULL_STEP = 4 * 2 ** 20;

export interface PreallocateOptions {
  filename: string;
  /** Where what is taken begins. Default 0. */
  from?: number;
  /** Bytes of the file. */
  size: number;
  preallocation: RawPreallocation;
  signal?: AbortSignal | undefined;
}

/**
 * Takes the space of an open file that is empty from `from` on; it goes on to read as zero.
 *
 * @throws TypeError for another name; LacunaError ERR_DEVICE_UNSUPPORTED where there is no `falloc`; ERR_DEVICE_IO, most often with ENOSPC.
 */
export async function preallocate(fd: number, options: PreallocateOptions): Promise<void> {
  const { from = 0, size, preallocation, signal } = options;
  if (!NAMES.includes(preallocation)) {
    throw new TypeError(
      `preallocation must be one of ${NAMES.join(', ')} for a raw file, not ${preallocation}`,
    );
  }
  if (preallocation === 'off') return;
  const step = preallocation === 'full' ? FULL_STEP : FALLOC_STEP;
  const take = preallocation === 'full' ? zeroWriter(fd, options) : allocator(fd, options);
  for (let offset = from; offset < size; offset += step) {
    throwIfAborted(signal);
    await take(offset, Math.min(step, size - offset));
  }
}

type Take = (offset: number, length: number) => Promise<void>;

function allocator(fd: number, { filename }: PreallocateOptions): Take {
  const calls = systemCalls();
  if (calls === undefined) throw noFalloc(filename);
  return async (offset, length) => {
    const result = calls.allocate(fd, offset, length);
    if (result >= 0) return;
    const errno = errnoName(result);
    if (errno === 'EOPNOTSUPP' || errno === 'ENOSYS') throw noFalloc(filename);
    throw fileError(
      'ERR_DEVICE_IO',
      { action: 'allocate', device: filename, offset, length },
      errno,
    );
  };
}

function zeroWriter(fd: number, { filename }: PreallocateOptions): Take {
  const zeroes = Buffer.alloc(FULL_STEP);
  return async (offset, length) => {
    try {
      for (let done = 0; done < length; ) {
        done += (await write(fd, zeroes, 0, length - done, offset + done)).bytesWritten;
      }
    } catch (error) {
      const request = { action: 'allocate', device: filename, offset, length };
      throw fileError('ERR_DEVICE_IO', request, error as Error);
    }
  };
}

function noFalloc(filename: string): LacunaError {
  const message = `${filename} cannot be preallocated by falloc here: use full, which writes zeroes, or off`;
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: filename });
}
