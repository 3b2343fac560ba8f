import {
  type Geometry,
  type Mapped,
  type MappingRules,
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
  const { clusterSize, l2EntryBytes } = rules.geometry;
  const view = viewOf(table);
  const runs: { offset: number; count: number }[] = [];
  for (let at = 0; at < table.length; at += l2EntryBytes) {
    if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) continue;
    const mapped = readMapped(table, at, rules, offset);
    const run = referenceOf(mapped, rules.geometry, rules.dataFile);
    if (run === undefined) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.offset + last.count * clusterSize === run.offset) {
      last.count += run.count;
    } else runs.push({ ...run });
  }
  return runs;
}
