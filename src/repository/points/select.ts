/** Finds a point by its number, its time, or `latest`. */
import { basename } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import type { MachinePoints } from '../disks/index.js';
import { checkName, numberOf } from '../layout/index.js';
import type { Manifest } from '../manifest/index.js';
import type { Store } from '../store/index.js';

/** A point: its number, `latest`, or the newest that is not younger than a time. With a machine before it, as `web/7`. */
export type PointName = number | string | Date;

/** A point that was found. */
export interface SelectedPoint {
  readonly points: MachinePoints;
  readonly manifest: Manifest;
}

/**
 * Finds a point.
 *
 * @throws TypeError for a name that makes no sense; LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED
 */
export function selectPoint(store: Store, name: PointName, machine?: string): SelectedPoint {
  const [, own, rest] = typeof name === 'string' ? (/^(?:([^/]*)\/)?(.*)$/.exec(name) ?? []) : [];
  const points = store.points(selectMachine(store, own ?? machine));
  const wanted = rest ?? name;
  const number = typeof wanted === 'number' ? wanted : numberIn(wanted);
  if (number !== undefined) return { points, manifest: points.get(number) };
  const until = wanted === 'latest' ? Number.POSITIVE_INFINITY : timeOf(wanted as string | Date);
  const found = points.points.findLast(({ time }) => Date.parse(time) <= until);
  refuseUnread(
    points,
    found?.number ?? 0,
    String(name instanceof Date ? name.toISOString() : name),
  );
  if (found !== undefined) return { points, manifest: points.get(found.number) };
  const when =
    until === Number.POSITIVE_INFINITY ? '' : ` as old as ${new Date(until).toISOString()}`;
  throw new LacunaError('ERR_POINT_UNKNOWN', `${points.machine} has no restore point${when}`);
}

/** A manifest that cannot be read may be that of the point that is meant: an older one is not taken for it in silence. */
function refuseUnread({ points, problems }: MachinePoints, found: number, name: string): void {
  const next = points.find(({ number }) => number > found)?.number ?? Number.POSITIVE_INFINITY;
  const problem = problems.find(({ device = '' }) => {
    const number = numberOf(basename(device)) ?? 0;
    return number > found && number < next;
  });
  if (problem === undefined) return;
  const advice = found === 0 ? '' : `. The one before it is ${found}: name that number to have it`;
  const message = `Which point ${name} is cannot be told: ${problem.message}${advice}`;
  throw new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: problem.device });
}

/** A machine by its name, or the only one. */
function selectMachine(store: Store, machine: string | undefined): string {
  if (machine !== undefined) {
    checkName('machine', machine);
    store.checkMachine(machine);
    return machine;
  }
  const machines = store.machines();
  if (machines.length === 1) return machines[0];
  if (machines.length === 0) {
    throw new LacunaError('ERR_POINT_UNKNOWN', `${store.path} has no restore points yet`);
  }
  const names = machines.join(', ');
  throw new TypeError(`say which machine, as ${machines[0]}/latest: there are ${names}`);
}

function numberIn(text: string | Date): number | undefined {
  return typeof text === 'string' && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

function timeOf(wanted: string | Date): number {
  if (wanted instanceof Date) return wanted.getTime();
  // A day alone means its end here, where the user is.
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(wanted);
  // Not so many hours behind its begin: a day on which clocks change has 23 or 25.
  const time = isDay ? Date.parse(`${wanted}T24:00`) - 1 : Date.parse(wanted);
  if (/^\d{4}-/.test(wanted) && !Number.isNaN(time)) return time;
  throw new TypeError(
    `a point is a number, "latest", or a time such as 2026-11-30T02:00, not ${JSON.stringify(wanted)}`,
  );
}
