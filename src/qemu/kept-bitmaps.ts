/** The bitmaps of older points that a machine keeps, so that an increment can begin from one of them. */
import type { MachineList, Repository } from '../repository/index.js';
import { generationOf } from './generation.js';
import type { LibvirtMachine } from './libvirt/index.js';
import type { Machine } from './machine.js';

/** QEMU pays for each with memory, and with each write of the guest. */
const MOST_KEPT = 100;

/** @throws RangeError */
export function checkKeepBitmaps(owner: string, keepBitmaps: number | undefined): void {
  if (keepBitmaps === undefined) return;
  if (Number.isInteger(keepBitmaps) && keepBitmaps >= 1 && keepBitmaps <= MOST_KEPT) return;
  throw new RangeError(
    `${owner}: keepBitmaps must be a whole number from 1 to ${MOST_KEPT}, not ${keepBitmaps}`,
  );
}

/** Of which points bitmaps are kept. */
export interface KeptFor {
  readonly repository: Repository;
  /** The name of the machine in the repository. */
  readonly name: string;
  /** How many of its points keep their bitmaps. */
  readonly count: number;
}

/**
 * Removes the bitmaps of all but the newest points. Those of another machine of the repository stay, as its disks may be in
 * the same QEMU, and so do those of sessions under way. Those of points that were pruned since go as well: nobody else would
 * know of them.
 *
 * @throws what `forget` throws; what reading the repository throws.
 */
export async function forgetOlder(
  machine: Machine | LibvirtMachine,
  { repository, name, count }: KeptFor,
): Promise<void> {
  const prefix = generationOf(repository.id, '');
  // Before the points are read: the point of a session that has ended since is among them.
  const there = (await machine.idleGenerations()).filter((one) => one.startsWith(prefix));
  // The usual case, in which no manifest has to be read: that of the newest point alone.
  if (there.length <= 1) return;
  const lists = repository.points();
  const own = generationsIn(lists.filter((list) => list.machine === name));
  const all = new Set(generationsIn(lists));
  // A point whose manifest is damaged may come back.
  const areAllKnown = lists.every(({ problems }) => problems.length === 0);
  const kept = new Set(own.slice(-count));
  for (const generation of there) {
    if (kept.has(generation)) continue;
    const isOld = own.includes(generation);
    if (isOld || (areAllKnown && !all.has(generation))) await machine.forget(generation);
  }

  /** In the order of the points. */
  function generationsIn(some: readonly MachineList[]): string[] {
    return some.flatMap(({ points }) => points.map(({ id }) => generationOf(repository.id, id)));
  }
}
