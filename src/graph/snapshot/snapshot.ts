import { optionCheck } from '../../util/index.js';
import type { Changer, Changes, Node } from '../core/index.js';
import { checkSnapshotDisk, openOverlay, type SnapshotDisk } from './overlay.js';

/** Snapshots of nodes, all at one moment. */
export interface SnapshotOptions {
  /** The nodes and their new layers. */
  readonly disks: readonly SnapshotDisk[];
}

const check = optionCheck<SnapshotOptions>({
  disks: { needed: 'a list; each is { node, overlay }' },
});

/** Puts new layers on top of nodes; see `Graph.snapshot`. */
export async function snapshot(changer: Changer, options: SnapshotOptions): Promise<Node[]> {
  check('Graph.snapshot', options);
  const { disks } = options;
  if (!Array.isArray(disks) || disks.length === 0) {
    throw new TypeError('disks must be a list of { node, overlay }, one or more');
  }
  for (const [i, disk] of disks.entries()) checkSnapshotDisk(`Graph.snapshot: disks[${i}]`, disk);
  if (new Set(disks.map(({ node }) => node)).size < disks.length) {
    throw new TypeError('disks must name each node once');
  }
  return changer.run(async () => {
    const opened: Node[] = [];
    try {
      const parts: Partial<Changes>[] = [];
      for (const disk of disks) parts.push(await openOverlay(changer, disk, opened));
      await changer.change({
        edges: parts.flatMap(({ edges = [] }) => edges),
        bitmaps: parts.flatMap(({ bitmaps = [] }) => bitmaps),
        joined: parts.flatMap(({ joined = [] }) => joined),
      });
      return opened;
    } catch (error) {
      await changer.takeBack([], [...opened].reverse());
      throw error;
    }
  });
}
