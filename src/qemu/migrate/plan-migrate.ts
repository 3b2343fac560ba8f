/** What a migration would move, and what is in its way. */
import { isAbsolute } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import { identityOf } from '../../files/index.js';
import type { DirtyBitmapInfo, Monitor, QmpNeeds } from '../../qmp/index.js';
import { isAtRest } from '../guard/index.js';
import { describeBitmaps, type MachineDisk, takeInventory } from '../inspect/index.js';
import { serverInTheWay, type Target } from '../session/index.js';
import { bitmapOf, prefixOfRecording } from '../state/index.js';
import type { MigratePlan, MigratePlanDisk, MigratePlanOptions } from './options.js';

const NEEDS_OF_SOURCE: QmpNeeds = {
  migrate: ['uri'],
  'migrate-continue': ['state.pre-switchover'],
  'migrate-set-capabilities': [],
  migrate_cancel: [],
};
const NEEDS_OF_DESTINATION: QmpNeeds = { 'migrate-incoming': ['uri'] };

/** A disk of a migration, with what only this machine knows of it. */
export interface PlannedMigration extends MigratePlanDisk {
  readonly disk: MachineDisk;
  readonly granularity: number;
  /** The format of the image on the destination, as the destination has opened it. */
  readonly format: string;
}

export interface FullPlan extends MigratePlan {
  readonly disks: readonly PlannedMigration[];
  /** Whether the machine runs now. */
  readonly isRunning: boolean;
}

/** For callers, without what is of no use to them. */
export function shortPlan({ disks, memoryBytes, obstacles }: FullPlan): MigratePlan {
  return { disks: disks.map(shortDisk), memoryBytes, obstacles };
}

export function shortDisk(planned: PlannedMigration): MigratePlanDisk {
  const { name, file, target, size, bitmap, dirtyBytes, carriesBitmap, otherBitmaps } = planned;
  return { name, file, target, size, bitmap, dirtyBytes, carriesBitmap, otherBitmaps };
}

/** @throws what `Machine.planMigration` throws */
export async function planMigration(
  source: Target,
  destination: Monitor,
  { bitmap, targets, signal }: MigratePlanOptions,
): Promise<FullPlan> {
  const { monitor } = source;
  await monitor.require(NEEDS_OF_SOURCE, { signal });
  await destination.require(NEEDS_OF_DESTINATION, { signal });
  const { disks } = await takeInventory(monitor, undefined, signal);
  checkTargets(monitor.name, disks, targets);
  const { disks: there } = await takeInventory(destination, undefined, signal);
  const planned: PlannedMigration[] = [];
  for (const disk of disks) {
    planned.push(planDisk(disk, { bitmap, path: targets[disk.name], there, destination }));
  }
  const state = await monitor.execute('query-status', undefined, { signal });
  const { 'base-memory': memoryBytes } = await monitor.execute('query-memory-size-summary');
  const obstacles = [
    ...disks.flatMap((disk) => disk.obstacles),
    ...planned.flatMap((one) => busyBitmap(one)),
    ...(await serverInTheWay(source, signal)),
    ...(await sourceInTheWay(monitor, state.status)),
    ...(await capabilitiesInTheWay(monitor)),
    ...(await destinationInTheWay(destination)),
  ];
  return { disks: planned, memoryBytes, obstacles, isRunning: state.running };
}

function checkTargets(
  device: string,
  disks: readonly MachineDisk[],
  targets: MigratePlanOptions['targets'],
): void {
  const names = disks.map(({ name }) => name);
  const unknown = Object.keys(targets).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    const there = names.join(', ') || 'none';
    const what = `there is no disk ${JSON.stringify(unknown)} that the machine can write: it has ${there}`;
    throw new LacunaError('ERR_MACHINE_DISK', `${device}: ${what}`, { device });
  }
  const without = names.filter((name) => targets[name] === undefined);
  if (without.length > 0) {
    const what = `${without.join(', ')} would stay behind: say for each disk that the machine can write which image of the destination it moves to`;
    throw new LacunaError('ERR_MACHINE_DISK', `${device}: ${what}`, { device });
  }
  const paths = Object.values(targets);
  const twice = paths.find((path, i) => paths.indexOf(path) !== i);
  if (twice !== undefined) throw new TypeError(`${twice} is the target of two disks`);
}

interface DiskWorld {
  readonly bitmap: string;
  readonly path: string;
  readonly there: readonly MachineDisk[];
  readonly destination: Monitor;
}

function planDisk(
  disk: MachineDisk,
  { bitmap: wanted, path, there, destination }: DiskWorld,
): PlannedMigration {
  const bitmap = bitmapNamed(disk, wanted);
  const other = there.find(({ name }) => name === disk.name);
  if (other === undefined) {
    const names = there.map(({ name }) => name).join(', ') || 'none';
    const what = `the destination has no disk "${disk.name}": its disks are ${names}; start it with the devices of the source`;
    throw new LacunaError('ERR_MACHINE_DISK', `${destination.name}: ${what}`, {
      device: destination.name,
    });
  }
  checkSameFile(path, other, destination.name);
  if (isSame(path, disk.file)) {
    throw new TypeError(`${path} is the disk ${disk.name} itself: name the image it moves to`);
  }
  if (other.size !== disk.size) {
    throw new LacunaError(
      'ERR_COPY_MISMATCH',
      `${path} is of ${other.size} bytes and ${disk.name} of ${disk.size}: resize the image before the destination is started`,
      { device: path },
    );
  }
  return {
    ...{ disk, name: disk.name, file: disk.file, target: path, size: disk.size },
    ...{ bitmap: bitmap.name!, dirtyBytes: bitmap.count, granularity: bitmap.granularity },
    ...{ format: other.format, carriesBitmap: other.canPersist },
    otherBitmaps: otherBitmaps(disk, bitmap),
  };
}

/** By its own name, or as the bitmap of a backup. */
function bitmapNamed(disk: MachineDisk, wanted: string): DirtyBitmapInfo {
  const names = [wanted, `${wanted}@${disk.name}`, bitmapOf(wanted, disk.name)];
  const found = disk.bitmaps.find(({ name }) => names.includes(name ?? ''));
  if (found === undefined) {
    throw new LacunaError(
      'ERR_BITMAP_UNKNOWN',
      `${disk.name} has no bitmap ${JSON.stringify(wanted)} and none of a backup of that generation: ${describeBitmaps(disk)}`,
      { device: disk.name },
    );
  }
  if (found.inconsistent !== true && found.recording) return found;
  const why = found.inconsistent ? 'QEMU did not end as it should' : 'somebody has disabled it';
  throw new LacunaError(
    'ERR_BITMAP_INCONSISTENT',
    `the bitmap ${JSON.stringify(found.name)} of ${disk.name} may lack writes: ${why}. Back the machine up, and begin from that backup`,
    { device: disk.name },
  );
}

/** Those that somebody may count from: not what work that has died has left. */
function otherBitmaps({ bitmaps }: MachineDisk, { name: own }: DirtyBitmapInfo): string[] {
  return bitmaps.flatMap(({ name }) =>
    name === undefined || name === own || prefixOfRecording(name) !== undefined ? [] : [name],
  );
}

function busyBitmap({ disk, bitmap }: PlannedMigration): string[] {
  const isBusy = disk.bitmaps.some(({ name, busy }) => name === bitmap && busy);
  return isBusy ? [`another operation uses the bitmap "${bitmap}" of ${disk.name}`] : [];
}

/** The image that is written must be the one that the destination reads. */
function checkSameFile(path: string, { name, file }: MachineDisk, device: string): void {
  if (isSame(path, file)) return;
  const where = isAbsolute(file) ? '' : ', whose path does not begin at the root';
  throw new LacunaError(
    'ERR_MACHINE_DISK',
    `${device}: the disk ${name} of the destination is ${file}${where}, and not ${path}: start the destination with that image, and with its whole path`,
    { device },
  );
}

function isSame(path: string, file: string): boolean {
  const plain = plainFile(file);
  if (!isAbsolute(plain)) return false;
  const identity = identityOf(path);
  return identity !== undefined && identity === identityOf(plain);
}

/** QEMU describes an image whose backing file it was told in JSON. */
function plainFile(file: string): string {
  if (!file.startsWith('json:')) return file;
  try {
    const found = JSON.parse(file.slice('json:'.length));
    return String(found.file?.filename ?? found.filename ?? file);
  } catch {
    return file;
  }
}

async function sourceInTheWay(monitor: Monitor, state: string): Promise<string[]> {
  const info = await monitor.execute('query-migrate');
  if (!isAtRest(info)) return [`a migration of the source is "${info.status}" already`];
  // One that stood still, and was not moved after all, is left so.
  const wasKept = state === 'postmigrate' && info.status !== 'completed';
  const isMovable = wasKept || ['running', 'paused', 'prelaunch', 'suspended'].includes(state);
  return isMovable ? [] : [`the source is in the state "${state}", and cannot be moved in it`];
}

/** Capabilities that somebody has switched on for migrations of another kind, and what each would do to this one. */
const UNFIT: Readonly<Record<string, string>> = {
  'dirty-bitmaps':
    'QEMU would send bitmaps to an image that has one of that name already, and the destination would stop',
  block: 'QEMU would send whole disks over what is copied here',
  multifd: 'the destination must have it as well, and moving with it was never tried',
  'background-snapshot': 'QEMU would write a snapshot, and hand nothing over',
};

async function capabilitiesInTheWay(monitor: Monitor): Promise<string[]> {
  const all = await monitor.execute('query-migrate-capabilities');
  return all.flatMap(({ capability, state }) =>
    state && UNFIT[capability] !== undefined
      ? [
          `the migration capability "${capability}" of the source is on: ${UNFIT[capability]}; switch it off (migrate-set-capabilities)`,
        ]
      : [],
  );
}

async function destinationInTheWay(monitor: Monitor): Promise<string[]> {
  const { status } = await monitor.execute('query-status');
  if (status === 'inmigrate') return [];
  return [
    `the destination is in the state "${status}" and waits for no machine: start it with -incoming defer`,
  ];
}
