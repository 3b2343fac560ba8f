/**
 * What the threads of one copy share beside the plan: a stop flag that everybody watches, and a row of
 * counters for each thread. A row has one writer and whole numbers, so it needs no atomics: a reader sees
 * every counter as it is or as it was a moment ago, never in between.
 *
 *     byte 0    stop flag, u32
 *     byte 4    unflushed flag, u32
 *     byte 64   row 0: moved, zeroed, skipped, requests (f64 each), padded to 64
 *     byte 128  row 1 ...
 */
import type { Device } from '../block/index.js';

const ROW_BYTES = 64;

export interface Counters {
  movedBytes: number;
  zeroedBytes: number;
  skippedBytes: number;
  requests: number;
}

export class Control {
  /** Post this to a worker, which makes a control of its own over it. */
  readonly memory: SharedArrayBuffer;
  readonly #stop: Int32Array;
  readonly #unflushed: Int32Array;
  readonly #rows: Float64Array;

  /** A control for this many threads. */
  static create(threads: number): Control {
    return new Control(new SharedArrayBuffer(ROW_BYTES * (threads + 1)));
  }

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#stop = new Int32Array(memory, 0, 1);
    this.#unflushed = new Int32Array(memory, 4, 1);
    this.#rows = new Float64Array(memory, ROW_BYTES);
  }

  get stopped(): boolean {
    return Atomics.load(this.#stop, 0) !== 0;
  }

  /** Tells every thread to claim nothing more. */
  stop(): void {
    Atomics.store(this.#stop, 0, 1);
  }

  /** Whether a flush of the target has failed: what was written before it may be lost. */
  get unflushed(): boolean {
    return Atomics.load(this.#unflushed, 0) !== 0;
  }

  /** Flushes the target, and remembers a failure: the next flush may succeed without what this one has lost. */
  async flush(target: Device, signal: AbortSignal): Promise<void> {
    try {
      await target.flush({ signal });
    } catch (error) {
      Atomics.store(this.#unflushed, 0, 1);
      throw error;
    }
  }

  /** The counters of one thread, for that thread to write. */
  row(thread: number): Counters {
    return new CounterRow(
      this.#rows.subarray((thread * ROW_BYTES) / 8, ((thread + 1) * ROW_BYTES) / 8),
    );
  }

  /** The sums over all threads. */
  total(): Counters {
    const total: Counters = { movedBytes: 0, zeroedBytes: 0, skippedBytes: 0, requests: 0 };
    for (let at = 0; at < this.#rows.length; at += ROW_BYTES / 8) {
      total.movedBytes += this.#rows[at];
      total.zeroedBytes += this.#rows[at + 1];
      total.skippedBytes += this.#rows[at + 2];
      total.requests += this.#rows[at + 3];
    }
    return total;
  }
}

class CounterRow implements Counters {
  readonly #cells: Float64Array;

  constructor(cells: Float64Array) {
    this.#cells = cells;
  }

  get movedBytes(): number {
    return this.#cells[0];
  }
  set movedBytes(value: number) {
    this.#cells[0] = value;
  }
  get zeroedBytes(): number {
    return this.#cells[1];
  }
  set zeroedBytes(value: number) {
    this.#cells[1] = value;
  }
  get skippedBytes(): number {
    return this.#cells[2];
  }
  set skippedBytes(value: number) {
    this.#cells[2] = value;
  }
  get requests(): number {
    return this.#cells[3];
  }
  set requests(value: number) {
    this.#cells[3] = value;
  }
}
