import { type Header, Incompatible } from '../../qcow2/index.js';
import type { BlockDevice } from '../contract/index.js';
import { type Checked, checkImage } from '../drivers/qcow2/check/index.js';
import { readHeader } from '../drivers/qcow2/io/index.js';
import { rebuildRefcounts } from '../drivers/qcow2/repair/index.js';

/** What a check found, counted as `qemu-img check` does; after a repair, what is left. */
export interface CheckReport {
  /** What is wrong with the image, and may cost data. */
  readonly corruptions: number;
  /** How many of them the repair has mended. */
  readonly corruptionsFixed: number;
  /** Clusters whose refcount is higher than the number of references: only space is lost. */
  readonly leaks: number;
  /** How many of them the repair has freed. */
  readonly leaksFixed: number;
  /** What could not be looked at. */
  readonly checkErrors: number;
  /**
   * Whether a repair of `all` can make the image right, as far as a check can tell: false where a table has a wrong entry.
   * A repair also refuses an image that uses a cluster for two things.
   */
  readonly repairable: boolean;
  /** What the image says of itself: that it is corrupt, or that its last writer did not close it. A repair of `all` ends that. */
  readonly marked?: 'corrupt' | 'dirty';
  /** The first hundred of all these, in words. */
  readonly problems: readonly string[];
  /** Bytes of the file up to behind the last cluster in use. */
  readonly imageEnd: number;
  /** Clusters of the disk. */
  readonly totalClusters: number;
  /** How many of them lie in the image. */
  readonly allocatedClusters: number;
  /** Those that do not follow the one before. */
  readonly fragmentedClusters: number;
  /** Those that are compressed. */
  readonly compressedClusters: number;
}

/** Checks the image in a file, and repairs it where that is asked for; see `checkQcow2`. */
export async function checkFile(
  file: BlockDevice,
  { repair, signal }: { repair?: 'leaks' | 'all' | undefined; signal?: AbortSignal | undefined },
): Promise<CheckReport> {
  const header = await readHeader(file);
  const before = await checkImage(file, header, { signal });
  const { findings } = before;
  if (repair === undefined || !isToRepair(header, before)) return reportOf(header, before);
  const leaksOnly = repair === 'leaks' && findings.low > 0;
  const marked = await rebuildRefcounts(file, header, { leaksOnly, signal });
  const now = await readHeader(file);
  const after = await checkImage(file, now, { signal });
  return reportOf(now, after, {
    leaksFixed: findings.leaks - after.findings.leaks,
    corruptionsFixed: findings.low - after.findings.low + marked,
  });
}

/** Whether there is something to repair that can be repaired. */
function isToRepair(header: Header, checked: Checked): boolean {
  const { leaks, corruptions } = checked.findings;
  return (markOf(header) !== undefined || leaks + corruptions > 0) && isRepairable(checked);
}

function isRepairable({ findings }: Checked): boolean {
  return findings.damaged + findings.checkErrors === 0;
}

function markOf({ incompatible }: Header): CheckReport['marked'] {
  if ((incompatible & Incompatible.corrupt) !== 0n) return 'corrupt';
  return (incompatible & Incompatible.dirty) !== 0n ? 'dirty' : undefined;
}

function reportOf(
  header: Header,
  checked: Checked,
  fixed: Pick<CheckReport, 'leaksFixed' | 'corruptionsFixed'> = {
    leaksFixed: 0,
    corruptionsFixed: 0,
  },
): CheckReport {
  const { findings, imageEnd, totalClusters } = checked;
  const marked = markOf(header);
  return {
    corruptions: findings.corruptions,
    leaks: findings.leaks,
    ...fixed,
    checkErrors: findings.checkErrors,
    repairable: isRepairable(checked),
    ...(marked !== undefined && { marked }),
    problems: findings.told,
    imageEnd,
    totalClusters,
    allocatedClusters: findings.allocatedClusters,
    fragmentedClusters: findings.fragmentedClusters,
    compressedClusters: findings.compressedClusters,
  };
}
