import {
  type Geometry,
  type Mapped,
  type MappingRules,
  plainHost,
  readMapped,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { Run } from './refcount-blocks.js';

/** The clusters of the file that one entry of an L2 table refers to, where it refers to any there. */
export function referenceOf(
  { host, compressed }: Mapped,
  { clusterSize }: Geometry,
  dataFile: boolean,
): Run | undefined {
  if (compressed !== undefined) {
    const { offset, length } = compressed;
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + length - 1) / clusterSize);
    return { offset: first * clusterSize, count: last - first + 1 };
  }
  return host === undefined || dataFile ? undefined : { offset: host, count: 1 };
}

/**
 * The clusters of the file that an L2 table refers to, each as often as it does; what lies in a row is one run.
 *
 * @param offset where the table lies, for the message.
 * @throws LacunaError ERR_QCOW2_CORRUPT where an entry cannot be.
 */
export function referencesOf(table: Uint8Array, offset: number, rules: MappingRules): Run[] {
  const { clusterSize, l2EntryBytes, extended } = rules.geometry;
  const isPlain = !extended && !rules.dataFile;
  const view = viewOf(table);
  const runs: { offset: number; count: number }[] = [];
  /** Where the last run ends. */
  let end = -1;
  const add = (start: number, count: number) => {
    if (start === end) runs[runs.length - 1].count += count;
    else runs.push({ offset: start, count });
    end = start + count * clusterSize;
  };
  for (let at = 0; at < table.length; at += l2EntryBytes) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) continue;
    // Nearly all are plain, and there may be millions.
    const host = isPlain ? plainHost(high, low, clusterSize) : -1;
    if (host > 0) add(host, 1);
    if (host >= 0) continue;
    const run = referenceOf(readMapped(table, at, rules, offset), rules.geometry, rules.dataFile);
    if (run !== undefined) add(run.offset, run.count);
  }
  return runs;
}
