/** What a mirror would do, found out before anything is changed. */
import type { BlockDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { isSamePlace } from '../../files/index.js';
import type { DirtyBitmapInfo, Monitor, QmpNeeds } from '../../qmp/index.js';
import { describeBitmaps, type MachineDisk, takeInventory } from '../inspect/index.js';
import { refuseObstacles, serverInTheWay, type Target } from '../session/index.js';
import { COMMON_NEEDS } from '../view/index.js';
import type { MirrorOptions } from './options.js';
import { isSameTarget, type ReplicaState, targetFile } from './replica-state.js';
import type { ReplicaPlaces } from './replica-target.js';

const NEEDS: QmpNeeds = {
  ...COMMON_NEEDS,
  'blockdev-add': ['driver.nbd'],
  'blockdev-mirror': [
    ...['job-id', 'filter-node-name', 'auto-dismiss', 'copy-mode', 'granularity', 'sync.none'],
  ],
  'block-job-cancel': ['force'],
  'block-job-pause': [],
  'block-job-resume': [],
  transaction: ['actions.type.block-dirty-bitmap-add', 'actions.type.block-dirty-bitmap-merge'],
  'block-dirty-bitmap-add': ['persistent'],
  'block-export-add': ['type.nbd', 'bitmaps', 'node-name'],
};

export interface MirrorPlan {
  readonly disk: MachineDisk;
  /** What the replica may lack; undefined where that is anything. */
  readonly bitmap: DirtyBitmapInfo | undefined;
  /** Bitmaps of earlier mirrors that are on the disk. */
  readonly made: readonly string[];
}

/** @throws what `Machine.mirror` throws before it changes anything */
export async function planMirror(
  target: Target,
  options: MirrorOptions,
  state: ReplicaState | undefined,
  places: ReplicaPlaces,
): Promise<MirrorPlan> {
  const { monitor } = target;
  const { signal } = options;
  await monitor.require(NEEDS, { signal });
  const disk = await chosenDisk(monitor, options);
  const obstacles = [...disk.obstacles, ...(await serverInTheWay(target, signal))];
  refuseObstacles({ obstacles }, monitor.name);
  const name = bitmapToBeginFrom(disk, options, state, places);
  const bitmap = name === null ? undefined : usableBitmap(disk, name, state);
  const there = new Set(disk.bitmaps.map((one) => one.name));
  return { disk, bitmap, made: (state?.made ?? []).filter((one) => there.has(one)) };
}

/** @throws LacunaError ERR_COPY_MISMATCH where the replica cannot be one of the disk. */
export function checkReplica({ disk }: MirrorPlan, device: BlockDevice): void {
  if (device.size !== disk.size) {
    throw new LacunaError(
      'ERR_COPY_MISMATCH',
      `${device.name} has ${device.size} bytes and ${disk.name} has ${disk.size}: a replica is of the same size`,
      { device: device.name },
    );
  }
  if (device.path === undefined || !isSamePlace(device.path, disk.file)) return;
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${device.name} is the disk ${disk.name} itself: name another target`,
    { device: device.name },
  );
}

async function chosenDisk(monitor: Monitor, { disk, signal }: MirrorOptions): Promise<MachineDisk> {
  const choices = disk === undefined ? undefined : [disk];
  const { disks } = await takeInventory(monitor, choices, signal);
  if (disks.length === 1) {
    if (!disks[0].readOnly) return disks[0];
    throw diskError(monitor, `${disks[0].name} is read-only: nothing of it changes, so copy it`);
  }
  const names = disks.map(({ name }) => name).join(', ');
  const which = names === '' ? 'it has no disk that is written' : `it has ${names}`;
  throw diskError(monitor, `say which disk is mirrored: ${which}`);
}

/** Its name; null where all is to be copied. */
function bitmapToBeginFrom(
  disk: MachineDisk,
  { bitmap, full = false }: MirrorOptions,
  state: ReplicaState | undefined,
  { file }: ReplicaPlaces,
): string | null {
  if (full) return null;
  if (state === undefined) {
    if (bitmap !== undefined) return bitmap;
    throw new TypeError(
      'nothing is known of this replica: name the bitmap that marks what it lacks (bitmap), or copy all of the disk (full)',
    );
  }
  if (state.size !== disk.size) {
    throw mismatch(disk, `the replica is of ${state.size} bytes and the disk of ${disk.size}`);
  }
  if (bitmap !== undefined && bitmap !== state.bitmap) {
    const from = state.bitmap === null ? 'all of the disk' : JSON.stringify(state.bitmap);
    throw mismatch(
      disk,
      `the replica has to be caught up from ${from}, and not from ${JSON.stringify(bitmap)}: leave out the bitmap`,
    );
  }
  // The name of a bitmap that a mirror has made is of one disk only.
  const isUnique = state.bitmap === null || state.made.includes(state.bitmap);
  if (!isUnique && (state.disk !== disk.name || state.image !== disk.file)) {
    throw mismatch(
      disk,
      `the replica is one of ${state.disk} (${state.image}), and ${disk.name} is ${disk.file}: name the disk of the replica`,
    );
  }
  // A replica that lacks everything may be any file.
  if (state.bitmap !== null && !isSameTarget(state, targetFile(file))) {
    throw mismatch(
      disk,
      'somebody has changed, moved or exchanged the replica since the last mirror',
    );
  }
  return state.bitmap;
}

function usableBitmap(
  disk: MachineDisk,
  name: string,
  state: ReplicaState | undefined,
): DirtyBitmapInfo {
  const bitmap = disk.bitmaps.find((one) => one.name === name);
  const what = `the bitmap ${JSON.stringify(name)} of ${disk.name}`;
  if (bitmap === undefined) {
    throw new LacunaError(
      'ERR_BITMAP_UNKNOWN',
      `${disk.name} has no bitmap ${JSON.stringify(name)}: ${describeBitmaps(disk)}. Without it all of the disk must be copied (full)`,
      { device: disk.name },
    );
  }
  const why = whyItLacksWrites(bitmap, state);
  if (why !== undefined) {
    throw new LacunaError(
      'ERR_BITMAP_INCONSISTENT',
      `${what} lacks writes, as ${why}: all of the disk must be copied (full)`,
      { device: disk.name },
    );
  }
  if (!bitmap.busy) return bitmap;
  const message = `another operation uses ${what}: wait until it has ended`;
  throw new LacunaError('ERR_MACHINE_BUSY', message, { retryable: true });
}

function whyItLacksWrites(
  { inconsistent, recording, count }: DirtyBitmapInfo,
  state: ReplicaState | undefined,
): string | undefined {
  if (inconsistent) return 'QEMU did not end as it should';
  if (!recording) return 'somebody has disabled it';
  if (count < (state?.marked ?? 0)) return 'somebody has cleared it since the last mirror began';
  return undefined;
}

function mismatch({ name }: MachineDisk, why: string): LacunaError {
  return new LacunaError(
    'ERR_REPLICA_MISMATCH',
    `${name}: ${why}; or copy all of the disk anew (full)`,
    { device: name },
  );
}

function diskError({ name }: Monitor, what: string): LacunaError {
  return new LacunaError('ERR_MACHINE_DISK', `${name}: ${what}`, { device: name });
}
