import type { Writable } from 'node:stream';
import { type BlockDevice, isBlockDevice, openDevice } from '../block/index.js';
import { abortedError, LacunaError } from '../errors/index.js';
import { JOB_OPTIONS, type JobControl, type JobOptions } from '../job/index.js';
import { checkGiven, closeAfter, optionCheck } from '../util/index.js';
import { StreamJob, type StreamReport, type StreamState } from './job/index.js';
import { A_DEVICE, type CopyOptions, type DeviceSource } from './options/index.js';
import { plan } from './plan/index.js';
import { checkTransfer, MOST_MISSING } from './run/index.js';
import { type ReadExtentsOptions, readExtents } from './view/index.js';

/** How a disk is given out as a stream; see {@link CopyOptions} for what has no words of its own. */
export interface ToStreamOptions
  extends Pick<CopyOptions, 'sourceFormat' | 'forceShare' | 'requests' | 'requestSize'>,
    JobOptions {}

const checkToStreamOptions = optionCheck<ToStreamOptions>({
  sourceFormat: 'any',
  forceShare: 'flag',
  requests: 'any',
  requestSize: 'any',
  ...JOB_OPTIONS,
});

const ZEROES = Buffer.alloc(512 * 1024);

/**
 * Writes all bytes of a source to a stream, in order, zeroes included. What is known to be zero is not read. Some
 * pieces are read ahead, and no more of them than `requests`, however slowly the stream takes them. The stream is not
 * ended. To stop it is to end it at once, since nothing tells how long the stream's reader takes.
 *
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: ERR_DEVICE_IO where the
 *   stream fails (`errno` is EPIPE where its reader went away), ERR_JOB_STOPPED after `stop()`, ERR_ABORTED when `signal`
 *   fires, and what the source fails with.
 */
export function copyToStream(
  source: DeviceSource,
  writable: Writable,
  options: ToStreamOptions = {},
): StreamJob {
  checkGiven('copyToStream', 'source', source, A_DEVICE);
  checkGiven('copyToStream', 'writable', writable, 'a stream of Node to write to');
  checkToStreamOptions('copyToStream', options);
  checkTransfer(options);
  return new StreamJob(options, (job, state) => run(source, writable, options, job, state));
}

async function run(
  source: DeviceSource,
  writable: Writable,
  options: ToStreamOptions,
  job: JobControl,
  state: StreamState,
): Promise<StreamReport> {
  const { sourceFormat: format, forceShare, requests, requestSize } = options;
  const outlet = new Outlet(writable, job);
  const how = { requests, requestSize, signal: job.ending };
  try {
    if (isBlockDevice(source)) return await pour(source, outlet, how, state);
    const device = await openDevice(source, { format, forceShare, signal: job.ending });
    return await closeAfter(
      () => pour(device, outlet, how, state),
      () => device.close(),
    );
  } finally {
    outlet.close();
  }
}

async function pour(
  source: BlockDevice,
  outlet: Outlet,
  how: ReadExtentsOptions,
  state: StreamState,
): Promise<StreamReport> {
  const started = performance.now();
  const { size } = source;
  const made = await plan({ source, signal: how.signal });
  state.totalBytes = size;
  const write = async (bytes: Uint8Array, what: 'movedBytes' | 'zeroedBytes') => {
    for await (const length of outlet.write(bytes, state.doneBytes)) {
      state.doneBytes += length;
      state.counted[what] += length;
    }
  };
  try {
    for await (const { data, length } of readExtents(source, made, how)) {
      // What is lent must be copied: nobody knows how long a stream holds on to what it was given.
      if (data !== undefined) await write(Buffer.from(data), 'movedBytes');
      else for (const zeroes of zeroesOf(length)) await write(zeroes, 'zeroedBytes');
    }
  } finally {
    made.data.free();
    made.zero.free();
  }
  return {
    size,
    ...state.counted,
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
  readonly #job: JobControl;

  constructor(writable: Writable, job: JobControl) {
    this.#writable = writable;
    this.#job = job;
    // A stream may fail while nobody writes to it yet, or not any more; the next write tells.
    writable.on('error', ignore);
  }

  /** Writes bytes in as many pieces as the rate wants, and tells the length of each that the stream has taken. */
  async *write(bytes: Uint8Array, offset: number): AsyncGenerator<number, void, void> {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.#job.pieceSize);
      await this.#job.next(piece.length);
      await this.#writePiece(piece, offset + at);
      at += piece.length;
      yield piece.length;
    }
  }

  /** Resolves when the stream has taken the piece. */
  async #writePiece(bytes: Uint8Array, offset: number): Promise<void> {
    const signal = this.#job.ending;
    await new Promise<void>((resolve, reject) => {
      const abort = () => end(abortedError(signal));
      const gone = () => end(streamError(offset, new Error('it was closed')));
      const end = (error?: Error) => {
        signal.removeEventListener('abort', abort);
        this.#writable.off('close', gone);
        if (error) reject(error);
        else resolve();
      };
      signal.addEventListener('abort', abort, { once: true });
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
