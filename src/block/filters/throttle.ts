import type { SharedCounters } from '../../wasm/index.js';
import { type CommonDescription, positive, size, text } from '../contract/index.js';
import { filterKind } from './filter-kind.js';
import type { Around, FilterDescription } from './pass-through.js';
import { pause } from './pause.js';

/** Limits how fast bytes and requests go, together for all openings that come from one. */
export interface ThrottleDescription extends CommonDescription, FilterDescription {
  /** Limits the rate of requests. */
  driver: 'throttle';
  /** Bytes that may be read and written in a second. Default: no limit. */
  'bytes-per-second'?: number;
  /** Requests in a second, flushes and status included. Default: no limit. */
  'requests-per-second'?: number;
  /** Seconds of the rate that may go at once after a time of rest. Default 0.1. */
  burst?: number;
  /** In a graph: nodes that say the same name share what goes, and are together as fast as each of them alone. */
  'throttle-group'?: string;
  /** What one opening hands to the next, in other threads too; not to be said. */
  shared?: SharedArrayBuffer;
}

declare module '../contract/description.js' {
  interface Descriptions {
    /** A limited rate. */
    throttle: ThrottleDescription;
  }
}

const [BYTES, REQUESTS, COUNTERS] = [0, 1, 2];
const SECOND = 1e9;
const BURST_SECONDS = 0.1;

export const throttle = filterKind<ThrottleDescription>({
  keys: {
    'bytes-per-second': { read: size },
    'requests-per-second': { read: positive },
    burst: { read: positive },
    'throttle-group': { read: text },
  },
  counters: COUNTERS,
  groupKey: 'throttle-group',
  around: limited,
});

function limited(
  {
    'bytes-per-second': bytesPerSecond,
    'requests-per-second': requestsPerSecond,
    burst = BURST_SECONDS,
  }: ThrottleDescription,
  counters: SharedCounters,
): { pass: Around; close: () => void; hurry: (on: boolean) => void } {
  if (bytesPerSecond === 0) throw new TypeError('bytes-per-second must be above 0');
  const most = burst * SECOND;
  const turn = (index: number, amount: number, rate: number | undefined) =>
    rate === undefined ? 0 : counters.takeTurn(index, (amount / rate) * SECOND, most);
  const haste = new Haste();
  const limit: Around = async ({ operation, length, signal }, pass) => {
    // Zeroes, discards and status move no bytes.
    const moved = operation === 'read' || operation === 'write' ? length : 0;
    const waits = [turn(BYTES, moved, bytesPerSecond), turn(REQUESTS, 1, requestsPerSecond)];
    await haste.pause(Math.max(...waits), signal);
    return await pass();
  };
  return { pass: limit, close: () => {}, hurry: (on) => haste.turn(on) };
}

/** Waits that somebody may cut short: all of them at once, and those that come, until it is taken back. */
class Haste {
  #hurries = 0;
  #waits = new AbortController();

  turn(on: boolean): void {
    this.#hurries += on ? 1 : -1;
    if (!on) return;
    this.#waits.abort();
    this.#waits = new AbortController();
  }

  async pause(ms: number, signal?: AbortSignal): Promise<void> {
    if (this.#hurries > 0 || ms <= 0) return;
    const cut = this.#waits.signal;
    const ends = signal === undefined ? cut : AbortSignal.any([cut, signal]);
    try {
      await pause(ms, ends);
    } catch (error) {
      if (signal?.aborted || !cut.aborted) throw error;
    }
  }
}
