/** The last round: the machine stands still, so its disks themselves are read. */
import { openDevice } from '../../block/index.js';
import { copy } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor } from '../../qmp/index.js';
import { type MachineDisk, takeInventory } from '../inspect/index.js';
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
  await checkUnchanged(monitor, options);
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

/**
 * The bitmaps know nothing of what was written above them, or to disks that came later.
 *
 * @throws LacunaError ERR_MIGRATION_FAILED where the machine has other disks than were planned
 */
async function checkUnchanged(
  monitor: Monitor,
  { targets, signal }: LastRoundOptions,
): Promise<void> {
  const { disks } = await takeInventory(monitor, undefined, signal);
  const planned = new Map(targets.map(({ planned: { disk } }) => [disk.name, disk]));
  for (const { name, node, size } of disks) {
    const before = planned.get(name);
    planned.delete(name);
    if (before?.node === node && before.size === size) continue;
    throw changed(monitor.name, `${name} ${howChanged(before, size)}`);
  }
  for (const name of planned.keys()) throw changed(monitor.name, `${name} is gone`);
}

function howChanged(before: MachineDisk | undefined, size: number): string {
  if (before === undefined) return 'is new';
  if (before.size !== size) return `has ${size} bytes, and had ${before.size}`;
  return 'has another image on top, such as by a snapshot';
}

function changed(device: string, what: string): LacunaError {
  return new LacunaError(
    'ERR_MIGRATION_FAILED',
    `${device}: the disks of the machine have changed while it was being moved: ${what}`,
    { device, retryable: true },
  );
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
