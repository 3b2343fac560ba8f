import type { SnapshotDisk } from '../../graph/index.js';
import { type Control, nodeNamed, refusal } from '../core/index.js';
import { about, type Command, command, text, type ValuesOf } from '../schema/index.js';

export const SNAPSHOT = {
  node: about(text, 'the node that is only read from then on'),
  overlay: about(text, 'a node that was added with `backing: null`, and that nobody uses'),
} as const;

/** New layers. */
export const snapshots: readonly Command<Control>[] = [
  command({
    name: 'blockdev-snapshot',
    about:
      'Puts a new, empty image on top of a node: who has used the node uses the image from then on.',
    differs: 'The image must name the file of the node as its backing file.',
    args: SNAPSHOT,
    run: (control: Control, args) =>
      withOverlays(control, [args], async ([disk]) => {
        await control.graph.snapshot({ disks: [disk] });
      }),
  }),
];

/**
 * Lends the nodes of new images for the moment of their snapshot: the graph opens them anew, over what they come to lie on. Where the
 * snapshot fails, they are there as before.
 *
 * @throws QmpCommandError; what the snapshot throws.
 */
export async function withOverlays<T>(
  control: Control,
  wanted: readonly ValuesOf<typeof SNAPSHOT>[],
  snapshot: (disks: SnapshotDisk[]) => Promise<T>,
): Promise<T> {
  const { graph } = control;
  const disks = wanted.map((one) => diskOf(control, one));
  const removed: string[] = [];
  try {
    for (const { overlay: name } of wanted) {
      await graph.remove(name);
      removed.push(name);
    }
    return await snapshot(disks);
  } catch (error) {
    await giveBack(control, removed, error);
    throw error;
  }
}

/** Opens all nodes again that can be. @throws QmpCommandError that tells of the others, and of what went wrong before. */
async function giveBack(
  { graph, described }: Control,
  names: readonly string[],
  first: unknown,
): Promise<void> {
  const lost: string[] = [];
  for (const name of names) {
    const description = described.get(name);
    if (description === undefined) continue;
    await graph.add(description, { writable: true }).catch((error: Error) => {
      described.delete(name);
      lost.push(`node '${name}' is closed, and could not be opened again: ${error.message}`);
    });
  }
  if (lost.length === 0) return;
  const why = first instanceof Error ? first.message : String(first);
  throw refusal([why, ...lost].join('; '));
}

function diskOf(
  { graph, described }: Control,
  { node, overlay }: ValuesOf<typeof SNAPSHOT>,
): SnapshotDisk {
  nodeNamed(graph, overlay);
  nodeNamed(graph, node);
  const { backing, ...description } = (described.get(overlay) ?? {}) as { backing?: unknown };
  if (!('file' in description) || nodeNamed(graph, overlay).isFilter) {
    throw refusal('The overlay does not support backing images');
  }
  const hasBacking = graph.edges.some(
    (edge) => edge.parent === overlay && edge.child === 'backing',
  );
  if (backing !== null || hasBacking) throw refusal('The overlay already has a backing image');
  const user = graph.edges.find((edge) => edge.node === overlay);
  if (user !== undefined) throw refusal('The overlay is already in use');
  const inMemory = graph.node(overlay).bitmaps.find(({ persistent }) => !persistent);
  if (inMemory !== undefined) {
    const why = `has the bitmap '${inMemory.name}' in memory alone, where it would be lost`;
    throw refusal(`node '${overlay}' ${why}: remove it, and add it after the snapshot`);
  }
  return { node, overlay: description as SnapshotDisk['overlay'], bitmaps: 'none' };
}
