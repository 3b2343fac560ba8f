/** Hands out the extents of a plan one by one, with their bytes, to a product that writes a format of its own. */

import type { Bitmap } from '../../bitmap/index.js';
import {
  type BlockDevice,
  type ImageFormat,
  isBlockDevice,
  openDevice,
} from '../../block/index.js';
import { LacunaError, throwIfAborted } from '../../errors/index.js';
import type { Range } from '../../extent/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import { Arena, type ArenaBlock } from '../../wasm/index.js';
import { A_DEVICE, type DeviceSource } from '../options/index.js';
import type { Plan } from '../plan/index.js';
import { checkTransfer, defaultRequestSize, REQUESTS } from '../run/index.js';

/** How a plan is read. */
export interface ReadExtentsOptions {
  /** The format inside a path. Default: from the path's ending. */
  sourceFormat?: ImageFormat | undefined;
  /** Reads in flight, and so pieces of data that are held at once. Default 8. */
  requests?: number | undefined;
  /** Bytes of one piece of data at most; a power of two from 4 KiB to 32 MiB. */
  requestSize?: number | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

const checkReadOptions = optionCheck<ReadExtentsOptions>({
  sourceFormat: 'any',
  requests: 'any',
  requestSize: 'any',
  signal: 'signal',
});

/** A piece of a plan. */
export interface PlannedExtent {
  /** First byte. */
  readonly offset: number;
  /** Bytes; above 0. */
  readonly length: number;
  /** `zero`: it must read as zero, and there is nothing to read. */
  readonly status: 'data' | 'zero';
  /**
   * The bytes; undefined for zeroes. They are lent until the next extent is asked for, and the property
   * throws from then on: use them up before, or copy them.
   */
  readonly data: Uint8Array | undefined;
}

/**
 * Reads what a plan says must move, in order of offset:
 *
 *     for await (const { offset, length, status, data } of readExtents(source, plan)) { ... }
 *
 * Data comes in pieces of `requestSize` bytes at most, aligned to it, zeroes in runs of any length; what is
 * clean is left out. Data is read ahead, `requests` pieces at most, and no further while the loop is busy.
 * It is lent, not copied: a piece is valid until the loop goes on. Ending the loop early waits for the reads
 * in flight and gives all memory back.
 *
 * The plan is used as it is when the loop begins, and stays the caller's. A device that the caller has opened
 * stays open; one that is given as text or as a description is opened when the loop begins and closed at its
 * end. Everything happens on the calling thread.
 *
 * When a read fails, the extents before it are handed out, then the loop throws the device's error, which
 * names the range.
 *
 * @throws TypeError or RangeError for options that make no sense, at once. In the loop: LacunaError
 *   ERR_BITMAP_MISMATCH where the plan is of another size; ERR_ABORTED when `signal` fires; what opening or
 *   reading the source throws.
 */
export function readExtents(
  source: DeviceSource,
  plan: Pick<Plan, 'data' | 'zero'>,
  options: ReadExtentsOptions = {},
): AsyncGenerator<PlannedExtent, void, void> {
  checkGiven('readExtents', 'source', source, A_DEVICE);
  checkGiven('readExtents', 'plan', plan, 'what plan() has made of the source');
  checkReadOptions('readExtents', options);
  checkTransfer(options);
  return walk(source, plan, options);
}

async function* walk(
  source: DeviceSource,
  plan: Pick<Plan, 'data' | 'zero'>,
  options: ReadExtentsOptions,
): AsyncGenerator<PlannedExtent, void, void> {
  const { sourceFormat, signal } = options;
  throwIfAborted(signal);
  if (isBlockDevice(source)) {
    yield* readAhead(source, plan, options);
    return;
  }
  const device = await openDevice(source, { format: sourceFormat, signal });
  try {
    yield* readAhead(device, plan, options);
  } finally {
    await device.close();
  }
}

async function* readAhead(
  source: BlockDevice,
  plan: Pick<Plan, 'data' | 'zero'>,
  options: ReadExtentsOptions,
): AsyncGenerator<PlannedExtent, void, void> {
  checkSize(plan.data, source);
  checkSize(plan.zero, source);
  const { signal, requests = REQUESTS.default } = options;
  const requestSize = options.requestSize ?? defaultRequestSize(source, source);
  // Taken now, so that a plan which is used up meanwhile is read as it is.
  const [data, zero] = [plan.data.snapshot(), plan.zero.snapshot()];
  const pieces = inOrder(data, zero, requestSize);
  const slots: ArenaBlock[] = [];
  const ahead: Piece[] = [];
  try {
    while (slots.length < requests) slots.push(Arena.default.allocate(requestSize));
    const idle = [...slots];
    for (;;) {
      while (idle.length > 0 && ahead.length < 2 * requests) {
        const { value: piece, done } = pieces.next();
        if (done) break;
        if (piece.status === 'data') piece.begin(source, idle.pop()!, signal);
        ahead.push(piece);
      }
      // What is taken from `ahead` is waited for in any case.
      throwIfAborted(signal);
      const piece = ahead.shift();
      if (piece === undefined) return;
      const slot = await piece.arrived();
      try {
        yield piece;
      } finally {
        piece.expire();
      }
      if (slot !== undefined) idle.push(slot);
    }
  } finally {
    // What is in flight writes into the slots.
    await Promise.allSettled(ahead.map((piece) => piece.arrived()));
    for (const slot of slots) slot.free();
    data.free();
    zero.free();
  }
}

class Piece implements PlannedExtent {
  readonly offset: number;
  readonly length: number;
  readonly status: 'data' | 'zero';
  #slot: ArenaBlock | undefined;
  #read: Promise<void> | undefined;
  #bytes: Uint8Array | undefined;
  #expired = false;

  constructor({ offset, length }: Range, status: 'data' | 'zero') {
    this.offset = offset;
    this.length = length;
    this.status = status;
  }

  get data(): Uint8Array | undefined {
    if (this.#expired && this.status === 'data') {
      throw new TypeError(
        `the ${this.length} bytes at ${this.offset} were lent until the next extent was asked for: copy what is needed longer`,
      );
    }
    return this.#bytes;
  }

  /** Begins to read into a slot. */
  begin(source: BlockDevice, slot: ArenaBlock, signal?: AbortSignal): void {
    this.#slot = slot;
    this.#bytes = slot.bytes.subarray(0, this.length);
    this.#read = source.read(this.offset, this.#bytes, { ...(signal && { signal }) });
    // Its failure is told when its turn comes; it must not count as unhandled before.
    this.#read.catch(() => {});
  }

  /** Waits until the bytes are there; the slot that holds them. */
  async arrived(): Promise<ArenaBlock | undefined> {
    await this.#read;
    return this.#slot;
  }

  expire(): void {
    this.#expired = true;
    this.#bytes = undefined;
  }
}

/** The runs of both bitmaps, of which none overlap, in order; data in pieces that fit a slot. */
function* inOrder(data: Bitmap, zero: Bitmap, requestSize: number): Generator<Piece, undefined> {
  const [dataRuns, zeroRuns] = [data.ranges(), zero.ranges()];
  let nextData = dataRuns.next();
  let nextZero = zeroRuns.next();
  for (;;) {
    if (!nextData.done && (nextZero.done || nextData.value.offset < nextZero.value.offset)) {
      yield* cutData(nextData.value, requestSize);
      nextData = dataRuns.next();
    } else if (!nextZero.done) {
      yield new Piece(nextZero.value, 'zero');
      nextZero = zeroRuns.next();
    } else return;
  }
}

function* cutData({ offset, length }: Range, requestSize: number): Generator<Piece, undefined> {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const next = Math.min(end, at - (at % requestSize) + requestSize);
    yield new Piece({ offset: at, length: next - at }, 'data');
    at = next;
  }
}

function checkSize({ size }: Bitmap, source: BlockDevice): void {
  if (size === source.size) return;
  throw new LacunaError(
    'ERR_BITMAP_MISMATCH',
    `The plan is of ${size} bytes and ${source.name} of ${source.size}: plan it anew`,
    { device: source.name },
  );
}
