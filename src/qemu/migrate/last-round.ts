/** The last round: the machine stands still, so its disks themselves are read. */
import { openDevice } from '../../block/index.js';
import { copy } from '../../copy/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor } from '../../qmp/index.js';
import { bitmapOf, type SessionNames } from '../state/index.js';
import { Teardown, ViewMaker } from '../view/index.js';
import type { Copied } from './rounds.js';
import { closeTargets, type OpenTarget } from './targets.js';

export interface LastRoundOptions {
  readonly names: SessionNames;
  /** That of the bitmaps which say what is left. */
  readonly generation: string;
  readonly nbd: { readonly server: NbdServerAddress; readonly isOurs: boolean };
  readonly targets: readonly OpenTarget[];
  readonly signal: AbortSignal;
}

/**
 * Copies what is dirty, makes it durable, and closes the images. Everything that migrations have in the source is gone then; its
 * own bitmaps go on.
 */
export async function lastRound(monitor: Monitor, options: LastRoundOptions): Promise<Copied> {
  const { names, nbd, targets, signal } = options;
  if (nbd.isOurs) {
    await new ViewMaker(monitor, names, 'overlay', signal).startServer(nbd.server);
  }
  await copyBitmaps(monitor, options);
  const copied: Copied = { movedBytes: 0, zeroedBytes: 0 };
  for (const [i, target] of targets.entries()) {
    const { movedBytes, zeroedBytes } = await copyDisk(monitor, i, target, options);
    copied.movedBytes += movedBytes;
    copied.zeroedBytes += zeroedBytes;
  }
  await closeTargets(targets);
  await new Teardown(monitor, names).run();
  return copied;
}

/** An export shows only bitmaps that do not record, and none is ever disabled. */
async function copyBitmaps(
  monitor: Monitor,
  { names, generation, targets, signal }: LastRoundOptions,
): Promise<void> {
  const actions = targets.flatMap(({ planned: { disk, granularity } }, i) => {
    const { node } = disk;
    const name = names.recording(i);
    const added = { node, name, granularity, persistent: false, disabled: true };
    const bitmaps = [{ node, name: bitmapOf(generation, disk.name) }];
    return [
      { type: 'block-dirty-bitmap-add', data: added },
      { type: 'block-dirty-bitmap-merge', data: { node, target: name, bitmaps } },
    ];
  });
  await monitor.execute('transaction', { actions }, { signal });
}

async function copyDisk(
  monitor: Monitor,
  index: number,
  { planned, device }: OpenTarget,
  { names, nbd, signal }: LastRoundOptions,
): Promise<Copied> {
  const { node } = planned.disk;
  const [name, bitmap] = [names.export(index), names.recording(index)];
  await monitor.execute(
    'block-export-add',
    { type: 'nbd', id: name, 'node-name': node, name, bitmaps: [{ node, name: bitmap }] },
    { signal },
  );
  const context = `qemu:dirty-bitmap:${bitmap}`;
  await using source = await openDevice(
    { driver: 'nbd', server: nbd.server, export: name, contexts: [context] },
    { signal },
  );
  return await copy({ source, target: device, context, signal });
}
