/** The disks of a machine: where their data and their bitmaps are. */
import { LacunaError } from '../../errors/index.js';
import type { DirtyBitmapInfo, DriveInfo, Monitor, NodeInfo } from '../../qmp/index.js';
import { prefixOf } from '../state/index.js';
import { Graph } from './graph.js';

/** A disk of a machine, reached through its monitor or through libvirt. */
export interface DiskInfo {
  /** Its name: the id of its device, or what the caller calls a node. */
  readonly name: string;
  /** The path or id of the device that the guest sees; absent where only a node is known. */
  readonly qdev?: string | undefined;
  /** The file of its top layer, as QEMU names it. */
  readonly file: string;
  /** The format of its image, such as `qcow2` or `raw`. */
  readonly format: string;
  /** Bytes. */
  readonly size: number;
  /** Nobody writes it. */
  readonly readOnly: boolean;
  /** Its bitmaps can be stored in its image, and so outlive the process. */
  readonly canPersist: boolean;
  /** What is in the way of a backup; empty where nothing is. */
  readonly obstacles: readonly string[];
}

/** A disk of a machine that is reached through its monitor. */
export interface MachineDisk extends DiskInfo {
  /** The node that the guest writes through. */
  readonly top: string;
  /** The node that has its bitmaps: the first below `top` that is no filter; `format` is its driver. */
  readonly node: string;
  /** The named bitmaps of the node. */
  readonly bitmaps: readonly DirtyBitmapInfo[];
}

/** A disk that is chosen by its name, or by its node where no device has it. */
export type DiskChoice = string | { readonly node: string; readonly name?: string | undefined };

/** What a machine has, as far as backups need to know. */
export interface Inventory {
  readonly disks: MachineDisk[];
  readonly nodes: NodeInfo[];
  readonly graph: Graph;
}

/** Filters that pass everything on to their `file`. */
const FILTERS: ReadonlySet<string> = new Set([
  ...['throttle', 'copy-on-read', 'preallocate', 'blkdebug', 'compress'],
]);
/** Filters of jobs. */
const FILTERS_OF_JOBS: ReadonlySet<string> = new Set([
  ...['copy-before-write', 'backup-top', 'mirror_top', 'commit_top', 'snapshot-access'],
]);

/** @throws what the monitor throws; LacunaError ERR_MACHINE_DISK for a choice that is not there */
export async function takeInventory(
  monitor: Monitor,
  choices: readonly DiskChoice[] | undefined,
  signal?: AbortSignal,
): Promise<Inventory> {
  const [drives, nodes, answer] = await Promise.all([
    monitor.execute('query-block', undefined, { signal }),
    monitor.execute('query-named-block-nodes', undefined, { signal }),
    monitor.execute('x-debug-query-block-graph', undefined, { signal }),
  ]);
  const world = {
    nodes: new Map(nodes.map((node) => [nameOf(node), node])),
    graph: new Graph(answer),
  };
  const all = drives.flatMap((drive) => diskOf(drive, world) ?? []);
  const disks =
    choices === undefined
      ? all.filter(({ readOnly }) => !readOnly)
      : choices.map((choice) => chosen(choice, all, world, monitor.name));
  checkOnce(disks, monitor.name);
  return { disks, nodes, graph: world.graph };
}

interface World {
  readonly nodes: ReadonlyMap<string, NodeInfo>;
  readonly graph: Graph;
}

function diskOf(drive: DriveInfo, world: World): MachineDisk | undefined {
  const { device, qdev, inserted } = drive;
  if (inserted === undefined) return undefined;
  return describeDisk({ name: shortName(device, qdev), qdev, top: inserted }, world);
}

/** `/machine/peripheral/vda/virtio-backend` is what the user calls vda. */
function shortName(device: string, qdev: string | undefined): string {
  const id = /^\/machine\/peripheral\/([^/]+)/.exec(qdev ?? '')?.[1];
  return id ?? (device === '' ? (qdev ?? '') : device);
}

function chosen(
  choice: DiskChoice,
  disks: readonly MachineDisk[],
  world: World,
  device: string,
): MachineDisk {
  if (typeof choice === 'string') {
    const found = disks.find(({ name, qdev }) => name === choice || qdev === choice);
    if (found !== undefined) return found;
    const names = disks.map(({ name }) => name).join(', ');
    const there = names === '' ? 'it has no disks' : `its disks are ${names}`;
    throw diskError(device, `there is no disk ${JSON.stringify(choice)}: ${there}`);
  }
  const top = world.nodes.get(choice.node);
  if (top === undefined) {
    throw diskError(device, `there is no node ${JSON.stringify(choice.node)}`);
  }
  return describeDisk({ name: choice.name ?? choice.node, top }, world);
}

function describeDisk(
  { name, qdev, top }: { name: string; qdev?: string | undefined; top: NodeInfo },
  world: World,
): MachineDisk {
  const obstacles = world.graph.jobsOn(nameOf(top)).map((job) => obstacleOf(job, name));
  let node = top;
  while (FILTERS.has(node.drv) || FILTERS_OF_JOBS.has(node.drv)) {
    const below = world.nodes.get(world.graph.childOf(nameOf(node), 'file') ?? '');
    if (FILTERS_OF_JOBS.has(node.drv) && obstacles.length === 0) {
      obstacles.push(`${name} has the filter "${nameOf(node)}" (${node.drv}) of somebody else`);
    }
    if (below === undefined) break;
    node = below;
  }
  const details = node.image['format-specific'];
  return {
    name,
    ...(qdev !== undefined && { qdev }),
    file: node.file,
    top: nameOf(top),
    node: nameOf(node),
    format: node.drv,
    size: top.image['virtual-size'],
    readOnly: top.ro,
    // Version 2 of qcow2 has no place for them.
    canPersist: node.drv === 'qcow2' && !node.ro && details?.data.compat !== '0.10',
    bitmaps: (node['dirty-bitmaps'] ?? []).filter((bitmap) => bitmap.name !== undefined),
    obstacles,
  };
}

function obstacleOf(job: string, disk: string): string {
  return prefixOf(job) === undefined
    ? `the job "${job}" works on ${disk}: wait for it, or cancel it`
    : `a backup or mirror of ${disk} is running, or has left its job "${job}": wait for it, or call recover()`;
}

/** Which named bitmaps a disk has, for messages. */
export function describeBitmaps({ bitmaps }: MachineDisk): string {
  const names = bitmaps.map(({ name }) => JSON.stringify(name)).join(', ');
  return names === '' ? 'it has no bitmaps' : `it has ${names}`;
}

/** Two disks of one name, or one node taken twice, would get the same bitmap twice. */
function checkOnce(disks: readonly MachineDisk[], device: string): void {
  for (const key of ['name', 'node'] as const) {
    const seen = new Set<string>();
    for (const disk of disks) {
      if (seen.has(disk[key])) {
        throw diskError(
          device,
          `two disks have the ${key} ${JSON.stringify(disk[key])}: choose one`,
        );
      }
      seen.add(disk[key]);
    }
  }
}

function nameOf(node: NodeInfo): string {
  return node['node-name'] ?? '';
}

function diskError(device: string, what: string): LacunaError {
  return new LacunaError('ERR_MACHINE_DISK', `${device}: ${what}`, { device });
}
