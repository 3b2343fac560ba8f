/** What an L2 table says of its clusters: whether each is alone, so that it may be written in place. */
import { type MappingRules, readMapped, writeMapped } from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import { joinSpans, type Span } from '../io/index.js';

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
  const { geometry } = rules;
  const view = viewOf(table);
  let changed: Span | undefined;
  for (let at = 0; at < table.length; at += geometry.l2EntryBytes) {
    if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) continue;
    const mapped = readMapped(table, at, rules, offset);
    if (mapped.host === undefined) continue;
    const answer = isAlone(mapped.host);
    const copied = typeof answer === 'boolean' ? answer : await answer;
    if (copied === mapped.copied) continue;
    writeMapped(table, at, { ...mapped, copied }, geometry);
    changed = joinSpans(changed, { from: at, to: at + geometry.l2EntryBytes });
  }
  return changed;
}
