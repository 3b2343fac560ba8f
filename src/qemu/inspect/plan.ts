/** What a backup of a machine would do, disk by disk, and why. */
import type { DirtyBitmapInfo, NodeInfo } from '../../qmp/index.js';
import { bitmapOf, countsFrom } from '../state/index.js';
import type { DiskInfo, MachineDisk } from './disks.js';

/** What a backup does with a disk, reached through a monitor or through libvirt. */
export interface PlannedDisk {
  /** The disk. */
  readonly disk: DiskInfo;
  /** `full`: all of it. `incremental`: what has changed since the base. */
  readonly mode: 'full' | 'incremental';
  /** Why, in words. */
  readonly reason: string;
  /** Bytes that are marked as changed, in whole granules; absent for a full backup. */
  readonly dirtyBytes?: number | undefined;
}

/** What a backup does with a disk of a machine that is reached through its monitor. */
export interface DiskPlan extends PlannedDisk {
  /** The disk. */
  readonly disk: MachineDisk;
  /** The bitmap that it begins from; absent for a full backup. */
  readonly bitmap?: DirtyBitmapInfo | undefined;
}

/**
 * Decides for each disk whether it can be an increment.
 *
 * @param base the generation of the last backup; undefined where there is none, or where it must not count.
 */
export function planDisks(
  disks: readonly MachineDisk[],
  nodes: readonly NodeInfo[],
  base: string | undefined,
): DiskPlan[] {
  return disks.map((disk) => {
    if (base === undefined) return full(disk, 'no earlier backup is given');
    const name = bitmapOf(base, disk.name);
    const bitmap = disk.bitmaps.find((one) => one.name === name);
    if (bitmap === undefined) return full(disk, whyMissing(base, disk, nodes));
    const fault = faultOf(bitmap);
    if (fault !== undefined) return full(disk, fault);
    return {
      disk,
      mode: 'incremental',
      reason: `the bitmap "${name}" has marked every write since that backup`,
      dirtyBytes: bitmap.count,
      bitmap,
    };
  });
}

/** What is in the way of using the bitmaps of a plan. */
export function busyBitmaps(plans: readonly DiskPlan[]): string[] {
  return plans.flatMap(({ disk, bitmap }) =>
    bitmap?.busy
      ? [
          `another operation uses the bitmap "${bitmap.name}" of ${disk.name}: wait until it has ended`,
        ]
      : [],
  );
}

function full(disk: MachineDisk, reason: string): DiskPlan {
  return { disk, mode: 'full', reason };
}

function whyMissing(base: string, disk: MachineDisk, nodes: readonly NodeInfo[]): string {
  const name = bitmapOf(base, disk.name);
  const other = disk.bitmaps.find((bitmap) => countsFrom(base, bitmap.name));
  if (other !== undefined) {
    return `there is no bitmap "${name}" but "${other.name}": in that backup the disk had another name, or disks were exchanged since`;
  }
  const elsewhere = nodes.find((node) =>
    node['dirty-bitmaps']?.some(
      (bitmap) => bitmap.name === name && node['node-name'] !== disk.node,
    ),
  );
  if (elsewhere !== undefined) {
    return `the bitmap "${name}" is on the node "${elsewhere['node-name']}" and not on the top layer: a snapshot was made since, or it is another disk's`;
  }
  const lost = disk.canPersist
    ? 'the disk was exchanged, QEMU was killed before it had stored the bitmap, or somebody has removed it'
    : `bitmaps of ${disk.format} disks end with the process, or the disk was exchanged`;
  return `there is no bitmap "${name}": ${lost}`;
}

function faultOf(bitmap: DirtyBitmapInfo): string | undefined {
  if (bitmap.inconsistent === true) {
    return `the bitmap "${bitmap.name}" may lack writes: QEMU did not end as it should`;
  }
  if (!bitmap.recording) {
    return `the bitmap "${bitmap.name}" lacks writes: somebody has disabled it`;
  }
  return undefined;
}
