/** What a populate would do, found out before anything is changed. */
import { LacunaError } from '../../errors/index.js';
import type { DirtyBitmapInfo, QmpNeeds } from '../../qmp/index.js';
import {
  type DiskChoice,
  describeBitmaps,
  type MachineDisk,
  takeInventory,
} from '../inspect/index.js';
import { refuseObstacles, serverInTheWay, type Target } from '../session/index.js';
import { COMMON_NEEDS } from '../view/index.js';
import {
  isGranularity,
  type MachineBitmap,
  type MachinePopulateOptions,
  type PopulateTarget,
} from './options.js';

const DEFAULT_GRANULARITY = 64 * 1024;

const NEEDS: QmpNeeds = {
  ...COMMON_NEEDS,
  'blockdev-add': ['driver.qcow2', 'driver.file', 'read-only'],
  transaction: ['actions.type.block-dirty-bitmap-add', 'actions.type.block-dirty-bitmap-merge'],
  'block-export-add': ['type.nbd', 'allocation-depth', 'node-name'],
};

interface FoundDisk extends MachineDisk {
  /** Bytes of a cluster of its image; 0 where it has none. */
  readonly clusterSize: number;
}

/** A target whose place is known. */
export interface PlannedTarget {
  readonly disk: FoundDisk;
  readonly name: string;
  readonly granularity: number;
  readonly persistent: boolean;
  readonly isNew: boolean;
}

/** A bitmap as QEMU's commands name it. */
export interface BitmapOfNode {
  readonly node: string;
  readonly name: string;
}

export interface PopulatePlan {
  /** Each once. */
  readonly sources: readonly MachineDisk[];
  readonly targets: readonly PlannedTarget[];
  readonly merge: readonly BitmapOfNode[];
  /**
   * Nodes whose writes must not be missed while allocation is read, and how they are recorded: a write of a few bytes may
   * allocate a whole cluster.
   */
  readonly written: readonly { readonly node: string; readonly granularity: number }[];
  /** Bytes of every target. */
  readonly size: number;
  /** The finest of the targets: with a coarser one more would become dirty than is allocated. */
  readonly granularity: number;
}

/** @throws what `Machine.populate` throws before it changes anything */
export async function planPopulate(
  target: Target,
  { sources: chosen, targets: wanted, merge: merged = [], signal }: MachinePopulateOptions,
): Promise<PopulatePlan> {
  const { monitor } = target;
  await monitor.require(NEEDS, { signal });
  const found = async (choice: DiskChoice) => {
    const { disks, nodes } = await takeInventory(monitor, [choice], signal);
    const { image } = nodes.find((node) => node['node-name'] === disks[0].node) ?? {};
    return { ...disks[0], clusterSize: image?.['cluster-size'] ?? 0 };
  };
  const sources = new Map<string, FoundDisk>();
  for (const choice of chosen) {
    const disk = await found(choice);
    sources.set(disk.node, disk);
  }
  const targets: PlannedTarget[] = [];
  for (const one of wanted) targets.push(plannedTarget(await found(one.disk), one));
  const { size } = targets[0].disk;
  const merge: BitmapOfNode[] = [];
  for (const one of merged) merge.push(mergedFrom(await found(one.disk), one, size));
  const layers = [...sources.values()];
  checkTogether(layers, targets);
  const disks = [...layers, ...targets.map(({ disk }) => disk)];
  const granularity = Math.min(...targets.map((one) => one.granularity));
  const written = new Map(
    disks.filter(({ readOnly }) => !readOnly).map((disk) => [disk.node, disk]),
  );
  const inTheWay = new Set(disks.flatMap((disk) => disk.obstacles));
  const obstacles = [...inTheWay, ...(await serverInTheWay(target, signal))];
  refuseObstacles({ obstacles }, monitor.name);
  return {
    ...{ sources: layers, targets, merge, size, granularity },
    written: [...written.values()].map(({ node, clusterSize }) => ({
      node,
      granularity: isGranularity(clusterSize) ? Math.max(granularity, clusterSize) : granularity,
    })),
  };
}

function plannedTarget(disk: FoundDisk, wanted: PopulateTarget): PlannedTarget {
  const { name, granularity = DEFAULT_GRANULARITY, persistent = disk.canPersist } = wanted;
  if (disk.readOnly) {
    const what = `${disk.name} is read-only, so a bitmap of it records nothing: choose the layer that is written`;
    throw new LacunaError('ERR_MACHINE_DISK', what, { device: disk.name });
  }
  const existing = disk.bitmaps.find((one) => one.name === name);
  if (existing !== undefined) {
    checkExisting(disk, existing, wanted);
    return {
      ...{ disk, name, isNew: false },
      granularity: existing.granularity,
      persistent: existing.persistent,
    };
  }
  if (persistent && !disk.canPersist) {
    const what = `the image of ${disk.name} (${disk.format}) cannot store bitmaps: leave out persistent`;
    throw new LacunaError('ERR_MACHINE_DISK', what, { device: disk.name });
  }
  return { disk, name, granularity, persistent, isNew: true };
}

function checkExisting(
  disk: MachineDisk,
  existing: DirtyBitmapInfo,
  { name, granularity, persistent }: PopulateTarget,
): void {
  checkUsable(disk, existing);
  const what = `the bitmap ${JSON.stringify(name)} of ${disk.name}`;
  if (!existing.recording) {
    throw busy(
      `${what} is disabled, so later writes would be missing from it: enable it (block-dirty-bitmap-enable), or choose another name`,
    );
  }
  if (granularity !== undefined && granularity !== existing.granularity) {
    throw mismatch(
      disk,
      `${what} has a granularity of ${existing.granularity} bytes already: leave the granularity out, or choose another name`,
    );
  }
  if (persistent !== undefined && persistent !== existing.persistent) {
    const is = existing.persistent ? 'is stored in the image' : 'is not stored in the image';
    throw mismatch(disk, `${what} ${is}: leave out persistent, or choose another name`);
  }
}

/** @throws unless QEMU lets the bits of a bitmap be used */
function checkUsable({ name: disk, node }: MachineDisk, bitmap: DirtyBitmapInfo): void {
  const name = JSON.stringify(bitmap.name);
  if (bitmap.inconsistent) {
    throw new LacunaError(
      'ERR_BITMAP_INCONSISTENT',
      `the bitmap ${name} of ${disk} may lack writes, as QEMU did not end as it should, and can only be removed: remove it (block-dirty-bitmap-remove with "node": ${JSON.stringify(node)}, "name": ${name}), then populate anew; or choose another name`,
      { device: disk },
    );
  }
  if (!bitmap.busy) return;
  throw busy(`another operation uses the bitmap ${name} of ${disk}: wait until it has ended`);
}

function mergedFrom(disk: MachineDisk, { name }: MachineBitmap, size: number): BitmapOfNode {
  const bitmap = disk.bitmaps.find((one) => one.name === name);
  if (bitmap === undefined) {
    throw new LacunaError(
      'ERR_BITMAP_UNKNOWN',
      `${disk.name} has no bitmap ${JSON.stringify(name)}: ${describeBitmaps(disk)}`,
      { device: disk.name },
    );
  }
  checkUsable(disk, bitmap);
  if (disk.size !== size) {
    throw mismatch(
      disk,
      `the bitmap ${JSON.stringify(name)} is of ${disk.size} bytes, as ${disk.name} is, and the targets are of ${size}: only one of the same size can be merged`,
    );
  }
  return { node: disk.node, name };
}

function checkTogether(sources: readonly MachineDisk[], targets: readonly PlannedTarget[]): void {
  const [{ disk: first }] = targets;
  const written = sources.filter(({ readOnly }) => !readOnly);
  const other = [...targets.map(({ disk }) => disk), ...written].find(
    ({ size }) => size !== first.size,
  );
  if (other !== undefined) {
    const what = `${other.name} is of ${other.size} bytes and ${first.name} of ${first.size}: they must be the same size`;
    throw mismatch(other, what);
  }
  const seen = new Set<string>();
  for (const { disk, name } of targets) {
    const key = `${disk.node} ${name}`;
    if (!seen.has(key)) seen.add(key);
    else throw new TypeError(`${disk.name} is to get the bitmap ${JSON.stringify(name)} twice`);
  }
}

function mismatch({ name }: MachineDisk, what: string): LacunaError {
  return new LacunaError('ERR_BITMAP_MISMATCH', what, { device: name });
}

function busy(what: string): LacunaError {
  return new LacunaError('ERR_MACHINE_BUSY', what, { retryable: true });
}
