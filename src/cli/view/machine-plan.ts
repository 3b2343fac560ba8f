import type { MachinePlan } from '../../qemu/index.js';
import { printable } from '../shell/index.js';
import { formatBytes } from '../text/index.js';

/** What a backup of a running machine would do with each disk, and what is in the way. */
export function describeMachinePlan(plan: MachinePlan): string {
  const { disks, view, fetch, obstacles, parent, scratchFreeBytes } = plan;
  const lines = disks.map(({ disk, mode, reason, dirtyBytes = 0 }) => {
    const over = parent === null ? 'all of it' : `what has other digests than point ${parent}`;
    const what =
      mode === 'incremental' ? `what has changed (${formatBytes(dirtyBytes)} dirty)` : over;
    const because = mode === 'incremental' ? '' : 'because ';
    return `${printable(disk.name)}: ${what}, ${because}${reason}. Disk: ${printable(disk.file)}\n`;
  });
  const free = `Held by ${view === 'access' ? 'snapshot-access' : 'an overlay'}; ${formatBytes(scratchFreeBytes)} are free for scratch images${fetch === 'push' ? ' and what QEMU pushes' : ''}.\n`;
  const inTheWay = obstacles.map((obstacle) => `In the way: ${obstacle}.\n`);
  return [...lines, free, ...inTheWay].join('');
}
