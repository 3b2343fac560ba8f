import { busy, called, type Named } from './failures.js';
import type { Gate } from './gate.js';

/** What may make requests wait, or go on doing something after it has answered. */
export interface Lasting {
  hurry?(on: boolean): void;
  settled?(): Promise<void>;
}

/** Where requests enter: an export or a job. */
export interface Entrance extends Named {
  readonly gate: Gate;
  /** What comes to lie above its node is not for it. */
  readonly isPinned: boolean;
}

/** What is kept still. */
export interface Drained {
  readonly entrances: readonly Entrance[];
  /** What lies below them. */
  readonly lasting: readonly Lasting[];
}

/** For so long a change waits for the requests in flight. */
export const DRAIN_LIMIT_MS = 10_000;

/** What is done while nothing is in flight. */
export interface DrainedWork<T> {
  /** What must be durable first; the limit holds for it too, and it begins nothing new when that is over. */
  readonly prepare: (isOver: () => boolean) => Promise<void>;
  readonly assign: () => T;
  /** What must be done to its end while nothing is in flight, however long it takes. */
  readonly finish?: () => Promise<void>;
}

/**
 * Runs work while nothing is in flight below some exports and jobs: what comes meanwhile waits in front of their gates, and
 * goes on afterwards, however the work ended.
 *
 * @throws LacunaError ERR_GRAPH_BUSY where it takes longer than the limit; nothing was assigned then.
 */
export async function drained<T>(
  { entrances, lasting }: Drained,
  limitMs: number,
  { prepare, assign, finish }: DrainedWork<T>,
): Promise<T> {
  for (const { gate } of entrances) gate.close();
  for (const each of lasting) each.hurry?.(true);
  try {
    await ready({ entrances, lasting }, limitMs, prepare);
    const result = assign();
    if (finish !== undefined) await finish();
    return result;
  } finally {
    for (const each of lasting) each.hurry?.(false);
    for (const { gate } of entrances) gate.open();
  }
}

async function ready(
  { entrances, lasting }: Drained,
  limitMs: number,
  prepare: DrainedWork<unknown>['prepare'],
): Promise<void> {
  let isOver = false;
  let timer: NodeJS.Timeout | undefined;
  let waitsFor = 'copies of what was written before';
  const late = new Promise<never>((_, reject) => {
    const end = () => {
      isOver = true;
      reject(tooLate(entrances, limitMs, waitsFor));
    };
    timer = setTimeout(end, limitMs);
  });
  try {
    const idle = Promise.all(entrances.map(({ gate }) => gate.idle()));
    await Promise.race([idle, late]);
    const settled = Promise.all(lasting.map((each) => each.settled?.()));
    await Promise.race([settled, late]);
    waitsFor = 'a flush, or a mark in an image, before the change';
    await Promise.race([prepare(() => isOver), late]);
  } finally {
    clearTimeout(timer);
  }
}

function tooLate(entrances: readonly Entrance[], limitMs: number, otherwise: string): Error {
  const held = entrances
    .filter(({ gate }) => gate.inFlight > 0)
    .map((each) => `${each.gate.inFlight} of ${called(each)}`);
  const who = held.length === 0 ? otherwise : held.join(', ');
  const message = `requests in flight did not end within ${limitMs} ms: ${who}; nothing was changed: try again, or give it more time`;
  return busy(message);
}
