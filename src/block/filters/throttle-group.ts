import { COUNTER_BYTES, SharedCounters } from '../../wasm/index.js';
import type { Operation } from './pass-through.js';

/** What is limited: bytes or requests in a second, of reads and writes together, or of one of them. */
export const THROTTLED = [
  'bps-total',
  'bps-read',
  'bps-write',
  'iops-total',
  'iops-read',
  'iops-write',
] as const;
export type Throttled = (typeof THROTTLED)[number];

/** One limit. */
export interface ThrottleLimit {
  /** Bytes or requests in a second; 0 for no limit. */
  readonly average: number;
  /** For `burstSeconds`, so many in a second; 0 for a tenth of a second of `average`. */
  readonly most: number;
  readonly burstSeconds: number;
}

/** All limits of a group. */
export interface ThrottleLimits {
  readonly limits: Readonly<Record<Throttled, ThrottleLimit>>;
  /** A request of more bytes counts as several, of so many bytes each; 0: as one. */
  readonly requestBytes: number;
}

const UNLIMITED: ThrottleLimit = { average: 0, most: 0, burstSeconds: 1 };

/** Of one limit: when its turns are free again, for the average and for the burst; and the three numbers of the limit. */
const [FREE, BURST_FREE, AVERAGE, MOST, SECONDS, CELLS] = [0, 1, 2, 3, 4, 5];
const [USERS, ROUND, REQUEST_BYTES, FIRST] = [0, 1, 2, 3];
const COUNTERS = FIRST + THROTTLED.length * CELLS;

const SECOND = 1e9;
/** Without a burst that is said, so much may go at once after a time of rest. */
const REST = 0.1;

/**
 * What throttle filters of one group share: their limits, as QEMU has them, and how much has gone. The limits may change while
 * requests wait.
 */
export class ThrottleGroup {
  /** What the description of a filter carries as `group`. */
  readonly memory: SharedArrayBuffer;
  readonly #cells: SharedCounters;

  /** @param memory that of a group which is there already. */
  constructor(memory?: SharedArrayBuffer) {
    this.#cells = new SharedCounters(memory ?? COUNTERS);
    this.memory = this.#cells.memory;
    if (memory === undefined) {
      const limits = Object.fromEntries(THROTTLED.map((name) => [name, UNLIMITED]));
      this.set({ limits: limits as ThrottleLimits['limits'], requestBytes: 0 });
    }
  }

  /** Whether this is the memory of a group. */
  static isMemory(value: unknown): value is SharedArrayBuffer {
    return value instanceof SharedArrayBuffer && value.byteLength === COUNTERS * COUNTER_BYTES;
  }

  /** How many filters are open that have it. */
  get users(): number {
    return this.#cells.get(USERS);
  }

  /** A filter begins to use it. @returns ends that */
  join(): () => void {
    this.#cells.add(USERS, 1);
    return () => void this.#cells.add(USERS, -1);
  }

  /** Another one since the limits were changed. */
  get round(): number {
    return this.#cells.get(ROUND);
  }

  get limits(): ThrottleLimits {
    const limits = THROTTLED.map((name, i) => {
      const [average, most, burstSeconds] = [AVERAGE, MOST, SECONDS].map((cell) =>
        this.#of(i, cell),
      );
      return [name, { average, most, burstSeconds }];
    });
    return { limits: Object.fromEntries(limits), requestBytes: this.#cells.get(REQUEST_BYTES) };
  }

  /** Sets all limits; they count from 0. Those who wait ask again. */
  set({ limits, requestBytes }: ThrottleLimits): void {
    for (const [i, name] of THROTTLED.entries()) {
      const { average, most, burstSeconds } = limits[name];
      const at = FIRST + i * CELLS;
      for (const cell of [FREE, BURST_FREE]) this.#cells.set(at + cell, 0);
      this.#cells.set(at + AVERAGE, average);
      this.#cells.set(at + MOST, most);
      this.#cells.set(at + SECONDS, burstSeconds);
    }
    this.#cells.set(REQUEST_BYTES, requestBytes);
    this.#cells.add(ROUND, 1);
  }

  /** Counts a request, and tells how many milliseconds it has to wait. What is written as zero, or discarded, counts as written. */
  take(operation: Operation, length: number): number {
    const side = sideOf(operation);
    if (side === undefined) return 0;
    const unit = this.#cells.get(REQUEST_BYTES);
    const requests = unit > 0 && length > unit ? length / unit : 1;
    const waits = THROTTLED.map((name, i) => {
      const isMeant = name.endsWith('total') || name.endsWith(side);
      return isMeant ? this.#turn(i, name.startsWith('bps') ? length : requests) : 0;
    });
    return Math.max(...waits);
  }

  #turn(index: number, amount: number): number {
    const average = this.#of(index, AVERAGE);
    if (average === 0) return 0;
    const [most, seconds] = [this.#of(index, MOST), this.#of(index, SECONDS)];
    const depth = most === 0 ? REST : (most * seconds) / average;
    const at = FIRST + index * CELLS;
    const wait = this.#cells.takeTurn(at + FREE, (amount / average) * SECOND, depth * SECOND);
    if (most === 0 || seconds <= 1) return wait;
    const burst = (amount / most) * SECOND;
    return Math.max(wait, this.#cells.takeTurn(at + BURST_FREE, burst, REST * SECOND));
  }

  #of(index: number, cell: number): number {
    return this.#cells.get(FIRST + index * CELLS + cell);
  }
}

function sideOf(operation: Operation): 'read' | 'write' | undefined {
  if (operation === 'read') return 'read';
  return ['write', 'zero', 'discard'].includes(operation) ? 'write' : undefined;
}
