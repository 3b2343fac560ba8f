import type { Bitmap, BitmapAction } from '../../../bitmap/index.js';
import { type BitmapChange, called, conflict, type Node } from '../../core/index.js';

/** What a target gets of the bitmaps of some nodes. */
interface Carried {
  readonly names: readonly string[];
  readonly changes: readonly BitmapChange[];
}

/** Bitmaps that record, of the nodes of one disk. */
function recordingOf(nodes: readonly Node[]) {
  return nodes.flatMap((node) =>
    node.bitmaps
      .filter(({ recording, inconsistent }) => recording && !inconsistent)
      .map((info) => ({ node, info })),
  );
}

/**
 * Throws where the target cannot get the bitmaps that record.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT
 */
export function checkCarried(nodes: readonly Node[], target: Node): void {
  const seen = new Set(target.bitmaps.map(({ name }) => name));
  for (const { node, info } of recordingOf(nodes)) {
    const { name, persistent } = info;
    const what = `bitmap '${name}' of ${called(node)} would go along to ${called(target)}`;
    if (seen.has(name)) {
      throw conflict(
        `${what}, where there is another one of that name: remove one of them, or say bitmaps: none`,
      );
    }
    if (persistent && !target.log.canKeep) {
      throw conflict(
        `${what}, which has no place to keep it: take an image, open it with a bitmapFile, or say bitmaps: none`,
      );
    }
    seen.add(name);
  }
}

/**
 * Adds the bitmaps that record to the target, as they are at the moment of the change, behind the changes of their own node.
 *
 * @param unread what the target does not hold: it is dirty in them then.
 */
export async function carried(
  nodes: readonly Node[],
  target: Node,
  unread: Bitmap,
): Promise<Carried> {
  checkCarried(nodes, target);
  const found = recordingOf(nodes);
  const actions: BitmapAction[] = [];
  for (const { node, info } of found) {
    const { name, granularity, persistent } = info;
    const { bitmaps } = node.log;
    await bitmaps.load(name);
    actions.push({ type: 'add', name, granularity, persistent });
    actions.push({ type: 'merge', target: name, sources: [{ bitmaps, name }, unread] });
  }
  const names = found.map(({ info }) => info.name);
  return { names, changes: actions.length === 0 ? [] : [{ node: target, actions }] };
}
