import type { Writable } from 'node:stream';
import { type BlockDevice, isBlockDevice, openDevice } from '../block/index.js';
import { abortedError, LacunaError, throwIfAborted } from '../errors/index.js';
import { checkGiven, closeAfter, optionCheck } from '../util/index.js';
import { Brake, type StreamJob, type StreamJobOptions, type StreamReport } from './job/index.js';
import { A_DEVICE, type CopyOptions, type DeviceSource } from './options/index.js';
import { plan } from './plan/index.js';
import { readExtents } from './read-extents.js';
import { checkTransfer, MOST_MISSING } from './run/index.js';

/** How a disk is given out as a stream; see {@link CopyOptions} for what has no words of its own. */
export interface ToStreamOptions
  extends Pick<CopyOptions, 'sourceFormat' | 'forceShare' | 'requests' | 'requestSize'>,
    StreamJobOptions {
  /** Told of every piece that the stream has taken. What it throws fails the copy. */
  onProgress?(progress: { doneBytes: number; totalBytes: number }): void;
}

const checkToStreamOptions = optionCheck<ToStreamOptions>({
  sourceFormat: 'any',
  forceShare: 'flag',
  requests: 'any',
  requestSize: 'any',
  rate: 'any',
  signal: 'signal',
  onProgress: 'callback',
});

const ZEROES = Buffer.alloc(512 * 1024);

/**
 * Writes all bytes of a source to a stream, in order, zeroes included. What is known to be zero is not read. Some
 * pieces are read ahead, and no more of them than `requests`, however slowly the stream takes them. The stream is not
 * ended.
 *
 * @throws TypeError or RangeError for options that make no sense; ERR_DEVICE_IO where the stream fails (`errno` is EPIPE
 *   where its reader went away), ERR_ABORTED when `signal` fires, and what the source fails with.
 */
export function copyToStream(
  source: DeviceSource,
  writable: Writable,
  options: ToStreamOptions = {},
): StreamJob {
  checkGiven('copyToStream', 'source', source, A_DEVICE);
  checkGiven('copyToStream', 'writable', writable, 'a stream of Node to write to');
  checkToStreamOptions('copyToStream', options);
  return Brake.steer(options, (brake) => run(source, writable, options, brake));
}

async function run(
  source: DeviceSource,
  writable: Writable,
  options: ToStreamOptions,
  brake: Brake,
): Promise<StreamReport> {
  checkTransfer(options);
  const { sourceFormat: format, forceShare, signal } = options;
  const outlet = new Outlet(writable, brake, signal);
  try {
    if (isBlockDevice(source)) return await pour(source, outlet, options);
    const device = await openDevice(source, { format, forceShare, signal });
    return await closeAfter(
      () => pour(device, outlet, options),
      () => device.close(),
    );
  } finally {
    outlet.close();
  }
}

async function pour(
  source: BlockDevice,
  outlet: Outlet,
  options: ToStreamOptions,
): Promise<StreamReport> {
  const started = performance.now();
  const { requests, requestSize, signal, onProgress } = options;
  const how = { requests, requestSize, signal };
  const { size } = source;
  const made = await plan({ source, signal });
  const movedBytes = made.data.dirtyBytes;
  let doneBytes = 0;
  const write = async (bytes: Uint8Array) => {
    for await (const length of outlet.write(bytes, doneBytes)) {
      doneBytes += length;
      onProgress?.({ doneBytes, totalBytes: size });
    }
  };
  try {
    for await (const { data, length } of readExtents(source, made, how)) {
      // What is lent must be copied: nobody knows how long a stream holds on to what it was given.
      if (data !== undefined) await write(Buffer.from(data));
      else for (const zeroes of zeroesOf(length)) await write(zeroes);
    }
  } finally {
    made.data.free();
    made.zero.free();
  }
  return {
    size,
    movedBytes,
    zeroedBytes: size - movedBytes,
    skippedBytes: 0,
    missing: source.missing.slice(0, MOST_MISSING),
    durationMs: performance.now() - started,
    warnings: made.warnings,
  };
}

function* zeroesOf(length: number): Generator<Uint8Array> {
  for (let left = length; left > 0; left -= ZEROES.length) {
    yield ZEROES.subarray(0, Math.min(left, ZEROES.length));
  }
}

/** Writes to a stream, one piece after the other. */
class Outlet {
  readonly #writable: Writable;
  readonly #brake: Brake;
  readonly #signal: AbortSignal | undefined;

  constructor(writable: Writable, brake: Brake, signal: AbortSignal | undefined) {
    this.#writable = writable;
    this.#brake = brake;
    this.#signal = signal;
    // A stream may fail while nobody writes to it yet, or not any more; the next write tells.
    writable.on('error', ignore);
  }

  /** Writes bytes in as many pieces as the rate wants, and tells the length of each that the stream has taken. */
  async *write(bytes: Uint8Array, offset: number): AsyncGenerator<number, void, void> {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.#brake.pieceSize);
      await this.#brake.mayMove(piece.length);
      await this.#writePiece(piece, offset + at);
      at += piece.length;
      yield piece.length;
    }
  }

  /** Resolves when the stream has taken the piece. */
  async #writePiece(bytes: Uint8Array, offset: number): Promise<void> {
    const signal = this.#signal;
    throwIfAborted(signal);
    await new Promise<void>((resolve, reject) => {
      const abort = () => end(abortedError(signal));
      const gone = () => end(streamError(offset, new Error('it was closed')));
      const end = (error?: Error) => {
        signal?.removeEventListener('abort', abort);
        this.#writable.off('close', gone);
        if (error) reject(error);
        else resolve();
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#writable.once('close', gone);
      this.#writable.write(bytes, (error) => {
        end(error ? streamError(offset, error) : undefined);
      });
    });
  }

  close(): void {
    // One that has failed may tell so only now.
    const { destroyed, closed } = this.#writable;
    if (!destroyed || closed) this.#writable.off('error', ignore);
  }
}

function ignore(): void {}

function streamError(offset: number, cause: NodeJS.ErrnoException): LacunaError {
  const message = `The stream took no more after ${offset} bytes: ${cause.message}`;
  const errno = cause.code;
  return new LacunaError('ERR_DEVICE_IO', message, { offset, cause, ...(errno && { errno }) });
}
