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
}

/** What is kept still. */
export interface Drained {
  readonly entrances: readonly Entrance[];
  /** What lies below them. */
  readonly lasting: readonly Lasting[];
}

/** For so long a change waits for the requests in flight. */
export const DRAIN_LIMIT_MS = 10_000;

/**
 * Runs work while nothing is in flight below some exports and jobs: what comes meanwhile waits in front of their gates, and
 * goes on afterwards, however the work ended.
 *
 * @throws LacunaError ERR_GRAPH_BUSY where that takes longer than the limit; nothing was begun then.
 */
export async function drained<T>(
  { entrances, lasting }: Drained,
  limitMs: number,
  work: () => Promise<T> | T,
): Promise<T> {
  for (const { gate } of entrances) gate.close();
  for (const each of lasting) each.hurry?.(true);
  try {
    await allIdle({ entrances, lasting }, limitMs);
    return await work();
  } finally {
    for (const each of lasting) each.hurry?.(false);
    for (const { gate } of entrances) gate.open();
  }
}

async function allIdle({ entrances, lasting }: Drained, limitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooLate(entrances, limitMs)), limitMs);
  });
  try {
    const idle = Promise.all(entrances.map(({ gate }) => gate.idle()));
    await Promise.race([idle, late]);
    const settled = Promise.all(lasting.map((each) => each.settled?.()));
    await Promise.race([settled, late]);
  } finally {
    clearTimeout(timer);
  }
}

function tooLate(entrances: readonly Entrance[], limitMs: number): Error {
  const held = entrances
    .filter(({ gate }) => gate.inFlight > 0)
    .map((each) => `${each.gate.inFlight} of ${called(each)}`);
  const who = held.length === 0 ? 'copies of what was written before' : held.join(', ');
  const message = `requests in flight did not end within ${limitMs} ms: ${who}; nothing was changed: try again, or give it more time`;
  return busy(message);
}
