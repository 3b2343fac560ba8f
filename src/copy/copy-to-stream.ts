import type { Writable } from 'node:stream';
import { Device, openDevice } from '../block/index.js';
import { abortedError, LacunaError, throwIfAborted } from '../errors/index.js';
import { closeAfter } from './close-after.js';
import type { StreamReport } from './copy-from-stream.js';
import type { CopyOptions, DeviceSource } from './options.js';
import { type Plan, plan } from './plan.js';
import { checkTransfer } from './transfer.js';

export interface ToStreamOptions
  extends Pick<CopyOptions, 'sourceFormat' | 'requests' | 'requestSize' | 'signal'> {
  /** Told of every piece that the stream has taken. */
  onProgress?(progress: { doneBytes: number; totalBytes: number }): void;
}

const REQUESTS = 8;
const REQUEST_SIZE = 512 * 1024;
const ZEROES = Buffer.alloc(REQUEST_SIZE);

/**
 * Writes all bytes of a source to a stream, in order, zeroes included. What is known to be zero is not read. Some
 * pieces are read ahead, and no more of them than `requests`, however slowly the stream takes them. The stream is not
 * ended.
 *
 * @throws ERR_DEVICE_IO where the stream fails (`errno` is EPIPE where its reader went away), ERR_ABORTED when
 *   `signal` fires, and what the source fails with.
 */
export async function copyToStream(
  source: DeviceSource,
  writable: Writable,
  options: ToStreamOptions = {},
): Promise<StreamReport> {
  checkTransfer(options);
  const { sourceFormat: format, signal } = options;
  if (source instanceof Device) return pour(source, writable, options);
  const device = await openDevice(source, { format, signal });
  return closeAfter(
    () => pour(device, writable, options),
    () => device.close(),
  );
}

async function pour(
  source: Device,
  writable: Writable,
  options: ToStreamOptions,
): Promise<StreamReport> {
  const started = performance.now();
  const { requests = REQUESTS, onProgress, signal } = options;
  const made = await plan({ source, signal });
  const { dirtyBytes } = made.data;
  const outlet = new Outlet(writable, signal);
  const ahead: Promise<Uint8Array>[] = [];
  const { size } = source;
  let written = 0;
  const writeOne = async () => {
    const bytes = await ahead[0];
    await outlet.write(bytes, written);
    ahead.shift();
    written += bytes.length;
    onProgress?.({ doneBytes: written, totalBytes: size });
  };
  try {
    for (const piece of piecesOf(made, options)) {
      if (ahead.length === requests) await writeOne();
      const bytes = read(source, piece, signal);
      // It is looked at when its turn comes, which must not be too late.
      bytes.catch(() => {});
      ahead.push(bytes);
    }
    while (ahead.length > 0) await writeOne();
  } finally {
    await Promise.allSettled(ahead);
    outlet.close();
    made.data.free();
    made.zero.free();
  }
  return {
    size,
    movedBytes: dirtyBytes,
    zeroedBytes: size - dirtyBytes,
    skippedBytes: 0,
    durationMs: performance.now() - started,
    warnings: made.warnings,
  };
}

interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isData: boolean;
}

/** All of the source in order, in pieces that end at multiples of the request size. */
function* piecesOf(
  { data }: Plan,
  { requestSize = REQUEST_SIZE }: ToStreamOptions,
): Generator<Piece> {
  const { size } = data;
  for (let offset = 0; offset < size; ) {
    const { dirty: isData, length: run } = data.status(offset, size - offset);
    for (const end = offset + run; offset < end; ) {
      const most = isData ? requestSize - (offset % requestSize) : ZEROES.length;
      const length = Math.min(end - offset, most);
      yield { offset, length, isData };
      offset += length;
    }
  }
}

/** Into memory of its own: nobody knows how long a stream holds on to what it was given. */
async function read(
  source: Device,
  { offset, length, isData }: Piece,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  if (!isData) return ZEROES.subarray(0, length);
  const bytes = Buffer.allocUnsafeSlow(length);
  await source.read(offset, bytes, { signal });
  return bytes;
}

/** Writes to a stream, one piece after the other. */
class Outlet {
  readonly #writable: Writable;
  readonly #signal: AbortSignal | undefined;

  constructor(writable: Writable, signal: AbortSignal | undefined) {
    this.#writable = writable;
    this.#signal = signal;
    writable.on('error', ignore);
  }

  /** Resolves when the stream has taken the piece. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    const signal = this.#signal;
    throwIfAborted(signal);
    await new Promise<void>((resolve, reject) => {
      const abort = () => reject(abortedError(signal));
      signal?.addEventListener('abort', abort, { once: true });
      const gone = () => reject(streamError(offset, new Error('it was closed')));
      this.#writable.once('close', gone);
      this.#writable.write(bytes, (error) => {
        signal?.removeEventListener('abort', abort);
        this.#writable.off('close', gone);
        if (error) reject(streamError(offset, error));
        else resolve();
      });
    });
  }

  close(): void {
    this.#writable.off('error', ignore);
  }
}

function ignore(): void {}

function streamError(offset: number, cause: NodeJS.ErrnoException): LacunaError {
  const message = `The stream took no more after ${offset} bytes: ${cause.message}`;
  const errno = cause.code;
  return new LacunaError('ERR_DEVICE_IO', message, { offset, cause, ...(errno && { errno }) });
}
