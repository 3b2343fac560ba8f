/** What an L2 table says of its clusters: whether each is alone, so that it may be written in place. */
import {
  isCopied,
  type MappingRules,
  plainHost,
  readMapped,
  withOtherCopied,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { Span } from '../io/index.js';

/**
 * Says in a table of each cluster whether it is alone.
 *
 * @param table which lies at `offset` of the file; it is changed.
 * @param isAlone takes where the cluster lies in the file.
 * @returns what of the table is another than before.
 */
export async function markClusters(
  table: Uint8Array,
  offset: number,
  rules: MappingRules,
  isAlone: (host: number) => boolean | Promise<boolean>,
): Promise<Span | undefined> {
  const { geometry, dataFile } = rules;
  const isPlain = !geometry.extended && !dataFile;
  const view = viewOf(table);
  let [from, to] = [-1, 0];
  for (let at = 0; at < table.length; at += geometry.l2EntryBytes) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) continue;
    // Nearly all are plain, and there may be millions.
    const plain = isPlain ? plainHost(high, low, geometry.clusterSize) : -1;
    const host = plain >= 0 ? plain || undefined : readMapped(table, at, rules, offset).host;
    if (host === undefined) continue;
    const answer = isAlone(host);
    const copied = typeof answer === 'boolean' ? answer : await answer;
    if (copied === isCopied(high)) continue;
    view.setUint32(at, withOtherCopied(high));
    if (from < 0) from = at;
    to = at + geometry.l2EntryBytes;
  }
  return from < 0 ? undefined : { from, to };
}
