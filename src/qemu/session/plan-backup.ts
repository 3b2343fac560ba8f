import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import {
  busyBitmaps,
  type DiskPlan,
  type MachineDisk,
  planDisks,
  takeInventory,
} from '../inspect/index.js';
import { PUSH_NEEDS } from '../push/index.js';
import { countsFrom } from '../state/index.js';
import { type ViewKind, viewKindOf } from '../view/index.js';
import type { BackupOptions, BackupPlanOptions, Fetch } from './options.js';
import type { Target } from './target.js';

/** What a backup of a machine would do. */
export interface BackupPlan {
  /** What it does with each disk, and why. */
  readonly disks: readonly DiskPlan[];
  /** How the point in time is held. */
  readonly view: ViewKind;
  /** How the data comes from QEMU. */
  readonly fetch: Fetch;
  /** What is in the way; with any of these a backup fails before it changes anything. */
  readonly obstacles: readonly string[];
  /** Bytes that are free in the folder of scratch images. */
  readonly scratchFreeBytes: number;
}

/** Looks at the machine, and changes nothing. */
export async function planBackup(
  target: Target,
  options: BackupPlanOptions & Pick<BackupOptions, 'generation'>,
): Promise<BackupPlan> {
  const { monitor } = target;
  const { signal, base, mode = 'auto', generation, fetch = 'pull' } = options;
  const best = await viewKindOf(monitor, signal);
  if (fetch === 'push') await requirePush(target, best, signal);
  const { disks, nodes } = await takeInventory(monitor, options.disks, signal);
  if (disks.length === 0) {
    throw new LacunaError(
      'ERR_MACHINE_DISK',
      `${monitor.name}: the machine has no disk that it can write; choose one by its node: disks: [{ node: "NAME" }]`,
      { device: monitor.name },
    );
  }
  const plans = mode === 'auto' ? planDisks(disks, nodes, base) : asked(disks, mode);
  const isTaken = (disk: MachineDisk) =>
    generation !== undefined && disk.bitmaps.some(({ name }) => countsFrom(generation, name));
  return {
    disks: plans,
    view: viewFrom(options.view, best, monitor.name),
    fetch,
    obstacles: [
      ...disks.flatMap(({ obstacles }) => obstacles),
      ...disks.filter(isTaken).map(({ name }) => `${name} has a bitmap of this generation already`),
      ...busyBitmaps(plans),
      ...(needsServer({ fetch, disks: plans }) ? await serverInTheWay(target, signal) : []),
    ],
    scratchFreeBytes: await freeBytes(target.folder),
  };
}

/** Whether anything is read from QEMU: where it pushes all of every disk, nothing is. */
export function needsServer({ fetch, disks }: Pick<BackupPlan, 'fetch' | 'disks'>): boolean {
  return fetch === 'pull' || disks.some(({ mode }) => mode === 'incremental');
}

/**
 * Looks whether the guest writes each disk through the filter that keeps old data. It does not where somebody has made a
 * snapshot, or changed the medium, since the backup was planned; from here on QEMU refuses both.
 *
 * @param filterOf the name of the filter of a disk, by its number.
 * @throws LacunaError ERR_MACHINE_BUSY
 */
export async function checkFilters(
  { monitor }: Target,
  { disks: plans }: Pick<BackupPlan, 'disks'>,
  { disks: choices, signal }: BackupPlanOptions,
  filterOf: (disk: number) => string,
): Promise<void> {
  const { disks, graph } = await takeInventory(monitor, choices, signal);
  const nodes = (choices ?? []).map((choice) => (typeof choice === 'string' ? '' : choice.node));
  for (const [index, { disk }] of plans.entries()) {
    const filter = filterOf(index);
    const now = disks.find(({ name }) => name === disk.name);
    const isThere = nodes.includes(disk.top) || now?.top === filter;
    if (isThere && !graph.isBacking(filter)) continue;
    throw new LacunaError(
      'ERR_MACHINE_BUSY',
      `${monitor.name}: a snapshot of ${disk.name} was made, or its medium was changed, while the backup began: begin again`,
      { device: monitor.name, retryable: true },
    );
  }
}

/** @throws LacunaError ERR_MACHINE_BUSY */
export function refuseObstacles(
  { obstacles }: Pick<BackupPlan, 'obstacles'>,
  device: string,
): void {
  if (obstacles.length === 0) return;
  throw new LacunaError('ERR_MACHINE_BUSY', `${device}: ${obstacles.join('; ')}`, {
    device,
    retryable: true,
  });
}

function asked(disks: readonly MachineDisk[], mode: 'full' | 'copy'): DiskPlan[] {
  const reason = mode === 'full' ? 'a full backup is asked for' : 'a copy is asked for';
  return disks.map((disk) => ({ disk, mode: 'full', reason }));
}

/** @throws LacunaError ERR_QMP_UNSUPPORTED */
async function requirePush(
  { monitor }: Target,
  best: ViewKind,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (best !== 'access') {
    const { major, minor, micro } = monitor.version;
    throw new LacunaError(
      'ERR_QMP_UNSUPPORTED',
      `${monitor.name}: QEMU can push a view from 8.0 on only, and this is ${major}.${minor}.${micro}, whose snapshot-access shows wrong data: fetch by pull, which every version can`,
      { device: monitor.name },
    );
  }
  await monitor.require(PUSH_NEEDS, { signal });
}

function viewFrom(wanted: ViewKind | undefined, best: ViewKind, device: string): ViewKind {
  if (wanted !== 'access' || best === 'access') return wanted ?? best;
  throw new LacunaError(
    'ERR_QMP_UNSUPPORTED',
    `${device}: snapshot-access can be relied on from QEMU 8.0 only: leave out view`,
    { device },
  );
}

/** QEMU has one NBD server, and does not say where it listens. */
export async function serverInTheWay(target: Target, signal?: AbortSignal): Promise<string[]> {
  if (target.nbd !== undefined) return [];
  const exports = await target.monitor.execute('query-block-exports', undefined, { signal });
  const ids = exports.filter(({ type }) => type === 'nbd').map(({ id }) => id);
  if (ids.length === 0) return [];
  return [
    `QEMU runs an NBD server already, with the exports ${ids.join(', ')}: say where it listens (nbd)`,
  ];
}

/**
 * Of a folder that is yet to be made, what is free where it will be.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function freeBytes(folder: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' && dirname(folder) !== folder) return await freeBytes(dirname(folder));
    throw new LacunaError(
      'ERR_DEVICE_OPEN',
      `Cannot use the folder ${folder} for scratch images (${code}): choose another`,
      { device: folder, cause, ...(code !== undefined && { errno: code }) },
    );
  }
}
