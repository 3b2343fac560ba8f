/**
 * What the threads of one copy share beside the plan: whether to go on, how fast, and a row of counters for
 * each thread. A row has one writer and whole numbers, so it needs no atomics: a reader sees every counter as
 * it is or as it was a moment ago, never in between.
 *
 *     byte 0    stopped, u32: claim nothing more
 *     byte 4    paused, u32: begin nothing until it is 0
 *     byte 8    unflushed, u32: a flush has failed
 *     byte 12   bell, u32: counts every change, and wakes whoever waits
 *     byte 64   rate limit, see rate-limit.ts
 *     byte 128  row 0: the counters in the order of COUNTERS (f64 each), padded to 64
 *     byte 192  row 1 ...
 */
import type { BlockDevice } from '../../block/index.js';
import { RATE_LIMIT_BYTES, RateLimit } from './rate-limit.js';

const [STOPPED, PAUSED, UNFLUSHED, BELL] = [0, 1, 2, 3];
const LIMIT_AT = 64;
const ROWS_AT = LIMIT_AT + RATE_LIMIT_BYTES;
const ROW_BYTES = 64;

export interface Counters {
  movedBytes: number;
  zeroedBytes: number;
  skippedBytes: number;
  /** Bytes of ranges that failed and were given up, as the caller had allowed. */
  leftOutBytes: number;
  requests: number;
  /** Requests that were made again after they had failed. */
  retries: number;
}

const COUNTERS: readonly (keyof Counters)[] = [
  'movedBytes',
  'zeroedBytes',
  'skippedBytes',
  'leftOutBytes',
  'requests',
  'retries',
];

export class Control {
  /** Post this to a worker, which makes a control of its own over it. */
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #limit: RateLimit;
  readonly #rows: Float64Array;

  /** A control for this many threads. */
  static create(threads: number): Control {
    const control = new Control(new SharedArrayBuffer(ROWS_AT + ROW_BYTES * threads));
    control.#limit.run(true, milliseconds());
    return control;
  }

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory, 0, LIMIT_AT / 4);
    this.#limit = new RateLimit(memory, LIMIT_AT);
    this.#rows = new Float64Array(memory, ROWS_AT);
  }

  get stopped(): boolean {
    return Atomics.load(this.#words, STOPPED) !== 0;
  }

  get paused(): boolean {
    return Atomics.load(this.#words, PAUSED) !== 0;
  }

  /** Whether there is a limit on bytes per second. */
  get isLimited(): boolean {
    return this.#limit.isSet;
  }

  /** Bytes of the longest request that keeps to the rate; Infinity where there is no limit. */
  get pieceSize(): number {
    return this.#limit.pieceSize;
  }

  /** Tells every thread to claim nothing more, and to finish what is in flight. */
  stop(): void {
    this.#tell(STOPPED, 1);
  }

  /** Takes back {@link stop}; only while no thread is at work. */
  start(): void {
    this.#tell(STOPPED, 0);
  }

  /** Whether a flush of the target has failed: what was written before it may be lost. */
  get unflushed(): boolean {
    return Atomics.load(this.#words, UNFLUSHED) !== 0;
  }

  /** Says that all that was written before a failed flush is going to be written again. */
  forgetUnflushed(): void {
    Atomics.store(this.#words, UNFLUSHED, 0);
  }

  /** Flushes the target, and remembers a failure: the next flush may succeed without what this one has lost. */
  async flush(target: BlockDevice, signal: AbortSignal): Promise<void> {
    try {
      await target.flush({ signal });
    } catch (error) {
      Atomics.store(this.#words, UNFLUSHED, 1);
      throw error;
    }
  }

  /** Lets every thread finish the requests in flight and begin no other until {@link resume}. */
  pause(): void {
    if (this.paused) return;
    this.#limit.run(false, milliseconds());
    this.#tell(PAUSED, 1);
  }

  resume(): void {
    if (!this.paused) return;
    this.#limit.run(true, milliseconds());
    this.#tell(PAUSED, 0);
  }

  /** Bytes per second from now on; undefined for as fast as it goes. */
  setRate(rate: number | undefined): void {
    this.#limit.setRate(rate, milliseconds());
    this.#ring();
  }

  /** Waits while the copy is paused. False once it is stopped: then begin nothing more. */
  async mayGo(): Promise<boolean> {
    for (;;) {
      const bell = Atomics.load(this.#words, BELL);
      if (this.stopped) return false;
      if (!this.paused) return true;
      await this.#wait(bell);
    }
  }

  /** As {@link mayGo}, and waits until the rate allows so many bytes. */
  async mayMove(bytes: number): Promise<boolean> {
    if (!this.#limit.isSet) return this.mayGo();
    const ticket = this.#limit.draw(bytes, milliseconds());
    for (;;) {
      const bell = Atomics.load(this.#words, BELL);
      if (!(await this.mayGo())) return false;
      const left = this.#limit.wait(ticket, milliseconds());
      if (left <= 0) return true;
      await this.#wait(bell, left);
    }
  }

  /** Lets time pass before something is tried again; false once the copy is stopped. */
  async delay(ms: number): Promise<boolean> {
    const end = milliseconds() + ms;
    for (;;) {
      const bell = Atomics.load(this.#words, BELL);
      if (this.stopped) return false;
      const left = end - milliseconds();
      if (left <= 0) return this.mayGo();
      await this.#wait(bell, left);
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
    // An array of numbers, since each sum in an object would be a new one on the heap.
    const sums = new Float64Array(COUNTERS.length);
    for (let at = 0; at < this.#rows.length; at += ROW_BYTES / 8) {
      for (let i = 0; i < sums.length; i++) sums[i] += this.#rows[at + i];
    }
    const total = noCounts();
    for (let i = 0; i < sums.length; i++) total[COUNTERS[i]] = sums[i];
    return total;
  }

  #tell(word: number, value: number): void {
    Atomics.store(this.#words, word, value);
    this.#ring();
  }

  #ring(): void {
    Atomics.add(this.#words, BELL, 1);
    Atomics.notify(this.#words, BELL);
  }

  /** Sleeps until the bell is not what it was, or the time has passed; sockets and timers are heard meanwhile. */
  async #wait(bell: number, ms = Number.POSITIVE_INFINITY): Promise<void> {
    const { async, value } = Atomics.waitAsync(this.#words, BELL, bell, ms);
    if (!async) return;
    // A wait does not keep a thread alive, and a paused copy must not end with it.
    const alive = setInterval(() => {}, 2 ** 30);
    try {
      await value;
    } finally {
      clearInterval(alive);
    }
  }
}

function noCounts(): Counters {
  return {
    movedBytes: 0,
    zeroedBytes: 0,
    skippedBytes: 0,
    leftOutBytes: 0,
    requests: 0,
    retries: 0,
  };
}

/** A clock that all threads read alike, and that nobody can set. */
function milliseconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
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
  get leftOutBytes(): number {
    return this.#cells[3];
  }
  set leftOutBytes(value: number) {
    this.#cells[3] = value;
  }
  get requests(): number {
    return this.#cells[4];
  }
  set requests(value: number) {
    this.#cells[4] = value;
  }
  get retries(): number {
    return this.#cells[5];
  }
  set retries(value: number) {
    this.#cells[5] = value;
  }
}
