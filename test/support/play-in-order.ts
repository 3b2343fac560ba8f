import { type ManualDisk, settled } from './manual-disk.js';

/**
 * Begins things, and ends the requests that disks hold, in an order that is chosen, until nothing is left. For `everyOrder`.
 */
export async function playInOrder(
  choose: (count: number) => number,
  disks: readonly ManualDisk[],
  beginnings: readonly (() => Promise<unknown>)[],
): Promise<void> {
  const waiting = [...beginnings];
  const begun: Promise<unknown>[] = [];
  for (;;) {
    await settled();
    const held = disks.flatMap((disk) => disk.held);
    const count = waiting.length + held.length;
    if (count === 0) break;
    const chosen = choose(count);
    if (chosen < waiting.length) begun.push(waiting.splice(chosen, 1)[0]());
    else held[chosen - waiting.length].release();
  }
  await Promise.all(begun);
}
