import type { SharedCounters } from '../../wasm/index.js';
import { type CommonDescription, positive, size, text } from '../contract/index.js';
import { filterKind } from './filter-kind.js';
import type { Around, FilterDescription } from './pass-through.js';
import { pause } from './pause.js';
import { ThrottleGroup } from './throttle-group.js';

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
  /** In place of limits of its own: the memory of a `ThrottleGroup`; not to be said in JSON. */
  group?: SharedArrayBuffer;
  /** What one opening hands to the next, in other threads too; not to be said. */
  shared?: SharedArrayBuffer;
}

declare module '../contract/description.js' {
  interface Descriptions {
    /** A limited rate. */
    throttle: ThrottleDescription;
  }
}

/** What a filter does with requests, how it ends, and how it lets those go that wait. */
interface Limited {
  readonly pass: Around;
  readonly close: () => void;
  readonly hurry: (on: boolean) => void;
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
    group: { read: readGroup, isHidden: true },
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
    group,
  }: ThrottleDescription,
  counters: SharedCounters,
): Limited {
  if (group !== undefined) return limitedTogether(new ThrottleGroup(group));
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

/** So often those who wait look whether the limits of their group are still the same. */
const LOOK_MS = 100;

function limitedTogether(group: ThrottleGroup): Limited {
  const haste = new Haste();
  /** @returns false where the limits have changed meanwhile, and it has to ask again */
  const turn = async (ms: number, signal: AbortSignal | undefined): Promise<boolean> => {
    const { round } = group;
    const end = performance.now() + ms;
    for (let left = ms; left > 0; left = end - performance.now()) {
      const wasCut = await haste.pause(Math.min(left, LOOK_MS), signal);
      if (wasCut) return true;
      if (group.round !== round) return false;
    }
    return true;
  };
  const limit: Around = async ({ operation, length, signal }, pass) => {
    while (!(await turn(group.take(operation, length), signal)));
    return await pass();
  };
  return { pass: limit, close: group.join(), hurry: (on) => haste.turn(on) };
}

function readGroup(value: unknown, key: string): SharedArrayBuffer {
  if (ThrottleGroup.isMemory(value)) return value;
  throw new TypeError(`${key} is the memory of a ThrottleGroup: leave it out`);
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

  /** @returns whether it was cut short */
  async pause(ms: number, signal?: AbortSignal): Promise<boolean> {
    if (this.#hurries > 0) return true;
    if (ms <= 0) return false;
    const cut = this.#waits.signal;
    const ends = signal === undefined ? cut : AbortSignal.any([cut, signal]);
    try {
      await pause(ms, ends);
      return false;
    } catch (error) {
      if (signal?.aborted || !cut.aborted) throw error;
      return true;
    }
  }
}
