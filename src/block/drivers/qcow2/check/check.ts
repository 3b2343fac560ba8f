/** What is wrong in an image, counted as `qemu-img check` counts it. */
import type { Header } from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { Findings } from './findings.js';
import { ReferenceCounts } from './reference-counts.js';
import { StoredRefcounts } from './stored-refcounts.js';
import { type Entry, TableWalk } from './table-walk.js';

/** Clusters that are counted at once, two bytes each; each further window costs a walk through all tables. */
const WINDOW = 2 ** 25;

/** What a check has counted; see {@link Findings}. */
export interface Checked {
  readonly findings: Findings;
  /** Bytes of the file up to behind the last cluster in use. */
  readonly imageEnd: number;
  /** Clusters of the disk. */
  readonly totalClusters: number;
}

/**
 * Looks at all tables and refcounts of an image, in memory that does not grow with it.
 *
 * @param file the image's own; nothing is written.
 * @param window clusters at once.
 * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED where its snapshots or bitmaps cannot be listed; ERR_ABORTED.
 */
export async function checkImage(
  file: BlockDevice,
  header: Header,
  { signal, window = WINDOW }: { signal?: AbortSignal | undefined; window?: number } = {},
): Promise<Checked> {
  const walk = await TableWalk.open(file, header, signal);
  const stored = await StoredRefcounts.open(file, header);
  const { clusterSize } = walk.geometry;
  const clusters = Math.ceil(file.end / clusterSize);
  const findings = new Findings();
  let highest = 0;
  for (let first = 0; first === 0 || first < clusters; first += window) {
    const counts = new ReferenceCounts(first, Math.min(first + window, clusters));
    await walk.count(counts, stored, findings);
    highest = Math.max(highest, await compare(counts, stored, findings, walk));
  }
  await checkMarks(walk, stored, findings);
  return {
    findings,
    imageEnd: (highest + 1) * clusterSize,
    totalClusters: Math.ceil(header.size / clusterSize),
  };
}

/** Compares refcounts with references; returns the last cluster that has any. */
async function compare(
  counts: ReferenceCounts,
  stored: StoredRefcounts,
  findings: Findings,
  walk: TableWalk,
): Promise<number> {
  let highest = 0;
  for (let cluster = counts.first; cluster < counts.end; cluster++) {
    if (cluster % stored.perBlock === 0) await walk.pause();
    const found = stored.get(cluster);
    const refcount = found instanceof Promise ? await found : found;
    if (refcount === undefined) {
      findings.fail(`the refcount of cluster ${cluster} cannot be read`);
      continue;
    }
    const references = counts.get(cluster);
    if (refcount > 0 || references > 0) highest = cluster;
    if (refcount === references) continue;
    const what = `cluster ${cluster} has refcount ${refcount}, and references: ${references}`;
    if (refcount < references) findings.undercount(what);
    else findings.leak(what);
  }
  return highest;
}

/** Clusters of the disk as it is now must be marked as alone exactly where their refcount is one. */
async function checkMarks(
  walk: TableWalk,
  stored: StoredRefcounts,
  findings: Findings,
): Promise<void> {
  const { clusterSize } = walk.geometry;
  const refcountOf = ({ offset }: Entry) => stored.get(Math.floor(offset / clusterSize));
  for await (const { entry, table } of walk.activeTables()) {
    if (isWrong(entry, await refcountOf(entry))) {
      findings.corrupt(`the L2 table at ${entry.offset} is marked wrongly as alone or shared`);
    }
    for (const each of walk.entriesOf(table)) {
      if (each.kind !== 'placed') continue;
      // Most blocks are at hand, and a promise for each entry would be slow.
      const found = walk.dataFile ? 1 : refcountOf(each);
      if (!isWrong(each, found instanceof Promise ? await found : found)) continue;
      findings.corrupt(`the cluster at ${each.offset} is marked wrongly as alone or shared`);
    }
  }
}

function isWrong({ copied }: Entry, refcount: number | undefined): boolean {
  return refcount !== undefined && (refcount === 1) !== copied;
}
