import type { Readable } from 'node:stream';
import type { BlockDevice } from '../block/index.js';
import { abortedError, LacunaError, throwIfAborted } from '../errors/index.js';
import { JOB_OPTIONS, type JobControl, type JobOptions, stoppedError } from '../job/index.js';
import { checkGiven, closeAfter, Lanes, optionCheck } from '../util/index.js';
import type { Arena, ArenaBlock } from '../wasm/index.js';
import { isWholeAfter, openStreamTarget, type StreamTarget } from './ends/index.js';
import { StreamJob, type StreamReport, type StreamState } from './job/index.js';
import { nextRun, shortestZero, zeroStep } from './move/index.js';
import { A_DEVICE, type CopyOptions, type DeviceSource } from './options/index.js';
import { checkTransfer } from './run/index.js';
import { freeArena, takeArena } from './threads/index.js';

/** How a stream is taken in; see {@link CopyOptions} for what has no words of its own. */
export interface FromStreamOptions
  extends Pick<
      CopyOptions,
      'targetFormat' | 'targetIsZero' | 'detectZeroes' | 'requests' | 'requestSize' | 'flush'
    >,
    JobOptions {
  /**
   * Let a stream that ends without a byte replace a file that holds something; else it is refused with ERR_COPY_EMPTY.
   * Default true; the command says false.
   */
  allowEmpty?: boolean;
}

const checkFromStreamOptions = optionCheck<FromStreamOptions>({
  targetFormat: 'any',
  targetIsZero: 'flag',
  allowEmpty: 'flag',
  detectZeroes: 'any',
  requests: 'any',
  requestSize: 'any',
  flush: 'flag',
  ...JOB_OPTIONS,
});

const REQUESTS = 8;
const REQUEST_SIZE = 512 * 1024;

/**
 * Writes a stream of unknown length to a target, from its first byte on. Zeroes are found and left out of a new file,
 * or written as such. A file gets the size of the stream, and appears under its name when it is whole; a device or
 * an export must have room for all of it. The stream is read no faster than its bytes are written.
 *
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: ERR_COPY_MISMATCH where
 *   there is no more room, ERR_JOB_STOPPED after `stop()`, ERR_ABORTED when `signal` fires, and what the stream and the
 *   target fail with.
 */
export function copyFromStream(
  readable: Readable,
  target: DeviceSource,
  options: FromStreamOptions = {},
): StreamJob {
  checkGiven('copyFromStream', 'readable', readable, 'a stream of Node to read from');
  checkGiven('copyFromStream', 'target', target, A_DEVICE);
  checkFromStreamOptions('copyFromStream', options);
  checkTransfer(options);
  return new StreamJob(options, (job, state) => run(readable, target, options, job, state));
}

async function run(
  readable: Readable,
  target: DeviceSource,
  options: FromStreamOptions,
  job: JobControl,
  state: StreamState,
): Promise<StreamReport> {
  // A stream may fail while nobody reads it yet, or not any more; whoever reads it is told.
  readable.on('error', ignore);
  try {
    const opened = await openStreamTarget({ ...options, target, signal: job.ending });
    return await closeAfter(
      () => new Intake(readable, opened, options, job, state).run(),
      () => opened.close(),
    );
  } finally {
    if (!readable.destroyed || readable.closed) readable.off('error', ignore);
  }
}

function ignore(): void {}

/** A program that failed at the other end of a pipe has written nothing. */
function refuseNothing({ name, holds }: StreamTarget): void {
  if (!holds) return;
  const message = `The stream ended without a byte, and ${name} was left as it is: find out why, or say --allow-empty (allowEmpty) if it is meant to become empty`;
  throw new LacunaError('ERR_COPY_EMPTY', message, { device: name });
}

class Intake {
  readonly #readable: Readable;
  readonly #target: StreamTarget;
  readonly #options: FromStreamOptions;
  readonly #job: JobControl;
  readonly #state: StreamState;
  readonly #arena: Arena;
  readonly #free: ArenaBlock[] = [];
  readonly #lanes = new Lanes();
  /** Rejects with the first failure; it may be long until more of the stream comes, or may go. */
  readonly #failed: Promise<never>;
  #fail: (error: unknown) => void = () => {};

  constructor(
    readable: Readable,
    target: StreamTarget,
    options: FromStreamOptions,
    job: JobControl,
    state: StreamState,
  ) {
    this.#readable = readable;
    this.#target = target;
    this.#options = options;
    this.#job = job;
    this.#state = state;
    this.#arena = takeArena();
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => {});
  }

  async run(): Promise<StreamReport> {
    const started = performance.now();
    const { flush = true } = this.#options;
    const { ending } = this.#job;
    const end = () => this.#readable.destroy(abortedError(ending));
    ending.addEventListener('abort', end, { once: true });
    const slots: ArenaBlock[] = [];
    try {
      // One that has fired while the target was opened is not heard any more.
      this.#job.throwIfEnding();
      this.#allocate(slots);
      const size = await this.#takeAll();
      throwIfAborted(this.#job.signal);
      if (size === 0 && this.#options.allowEmpty === false) refuseNothing(this.#target);
      const warnings = await this.#target.finish(size, flush);
      const durationMs = performance.now() - started;
      return { size, ...this.#state.counted, missing: [], durationMs, warnings };
    } catch (error) {
      this.#readable.destroy();
      await this.#lanes.idle().catch(() => {});
      const reason = await this.#reasonOf(error);
      if (!isWholeAfter(error)) await this.#keepOrRemove();
      throw reason;
    } finally {
      ending.removeEventListener('abort', end);
      for (const slot of slots) slot.free();
      freeArena(this.#arena);
    }
  }

  /** Why it has ended; where that is a stop, what was written is made durable. */
  async #reasonOf(error: unknown): Promise<unknown> {
    const { signal, ending } = this.#job;
    if (signal.aborted) return abortedError(signal);
    const failure = this.#lanes.failure?.error;
    if (!ending.aborted) return failure ?? error;
    if (failure !== undefined) return stoppedError(failure);
    try {
      const device = await this.#target.upTo(0, () => this.#lanes.idle());
      if (this.#options.flush !== false) await device.flush();
      return stoppedError();
    } catch (cause) {
      return stoppedError(cause);
    }
  }

  /** Leaves what was written, and nothing where nothing was. */
  async #keepOrRemove(): Promise<void> {
    const { movedBytes, zeroedBytes } = this.#state.counted;
    if (movedBytes + zeroedBytes > 0) this.#state.unfinished = await this.#target.keepUnfinished();
    else await this.#target.removeUnfinished();
  }

  #allocate(slots: ArenaBlock[]): void {
    const { requests = REQUESTS, requestSize = REQUEST_SIZE } = this.#options;
    while (slots.length < requests) slots.push(this.#arena.allocate(requestSize));
    this.#free.push(...slots);
  }

  /** Fills one slot after another; returns how many bytes have come. */
  async #takeAll(): Promise<number> {
    let offset = 0;
    let filled = 0;
    let slot = await this.#nextSlot();
    for await (const chunk of this.#readable) {
      if (!(chunk instanceof Uint8Array)) throw new TypeError('the stream must be one of bytes');
      for (let at = 0; at < chunk.length; ) {
        const room = Math.min(slot.length, this.#job.pieceSize);
        const part = chunk.subarray(at, at + Math.max(0, room - filled));
        slot.bytes.set(part, filled);
        at += part.length;
        filled += part.length;
        if (filled < room) continue;
        await this.#begin(slot, offset, filled);
        offset += filled;
        filled = 0;
        slot = await this.#nextSlot();
      }
    }
    if (filled > 0) await this.#begin(slot, offset, filled);
    await this.#lanes.idle();
    return offset + filled;
  }

  async #nextSlot(): Promise<ArenaBlock> {
    const { requests = REQUESTS } = this.#options;
    await this.#lanes.room(requests);
    return this.#free.pop()!;
  }

  async #begin(slot: ArenaBlock, offset: number, length: number): Promise<void> {
    await Promise.race([this.#job.next(length), this.#failed]);
    const device = await this.#target.upTo(offset + length, () => this.#lanes.idle());
    this.#lanes.start(async () => {
      try {
        await this.#write(device, slot, offset, length);
        // Pieces may be written in another order than they came in.
        this.#state.doneBytes += length;
      } catch (error) {
        this.#readable.destroy();
        this.#fail(error);
        throw error;
      } finally {
        this.#free.push(slot);
      }
    });
  }

  async #write(
    device: BlockDevice,
    slot: ArenaBlock,
    offset: number,
    length: number,
  ): Promise<void> {
    const { detectZeroes = 'unmap' } = this.#options;
    const { signal } = this.#job;
    const { isZero: targetIsZero } = this.#target;
    const { counted } = this.#state;
    const shortest = shortestZero(device, targetIsZero);
    const step = zeroStep(device.limits);
    const scan = { arena: this.#arena, block: slot, end: length, step, shortest };
    for (let at = 0; at < length; ) {
      const run = detectZeroes === 'off' ? -length : nextRun(scan, at);
      const end = Math.abs(run);
      if (run < 0) {
        await device.write(offset + at, slot.bytes.subarray(at, end), { signal });
        counted.movedBytes += end - at;
      } else if (targetIsZero) {
        counted.skippedBytes += end - at;
      } else {
        await device.zero(offset + at, end - at, { unmap: detectZeroes === 'unmap', signal });
        counted.zeroedBytes += end - at;
      }
      at = end;
    }
  }
}
