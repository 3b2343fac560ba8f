import type { BitmapAction } from '../../bitmap/index.js';
import { type Control, checkBitmap, nodeOfBitmap, refusal } from '../core/index.js';
import {
  about,
  type Command,
  command,
  count,
  list,
  optional,
  size,
  struct,
  text,
} from '../schema/index.js';
import { bitmapActions, MERGE, NAMED, NEW, prepareMerge } from './bitmap-actions.js';

const range = struct('DirtyRange', { offset: size, length: size });

/** So many ranges are told at once unless said. */
const RANGES = 1000;
const MOST_RANGES = 100_000;

/** Commands that do one thing to a bitmap. */
const single = Object.entries({
  'block-dirty-bitmap-remove': 'Removes a bitmap, also from its image.',
  'block-dirty-bitmap-clear': 'Makes a bitmap clean.',
  'block-dirty-bitmap-enable': 'Lets a bitmap record writes.',
  'block-dirty-bitmap-disable': 'Lets a bitmap record no more writes.',
}).map(([name, what]) =>
  command({
    name,
    about: what,
    args: NAMED,
    run: (control: Control, args) =>
      changed(control, args.node, bitmapActions(name)(control, args)),
  }),
);

/** What QEMU does by itself within jobs, for backup programs that keep their own time. */
const successors = Object.entries({
  'block-dirty-bitmap-create-successor': [
    'freeze',
    'Lets a successor record the writes from now on; the bitmap stays as it is.',
  ],
  'block-dirty-bitmap-abdicate': [
    'abdicate',
    'Puts the successor in the place of the bitmap: what was dirty before is forgotten.',
  ],
  'block-dirty-bitmap-reclaim': [
    'reclaim',
    'Puts the bitmap in its place again, with what its successor recorded.',
  ],
} as const).map(([name, [type, what]]) =>
  command({
    name,
    about: what,
    isOurs: true,
    args: NAMED,
    run: (control: Control, { node, name: bitmap }) => {
      checkBitmap(nodeOfBitmap(control.graph, node), bitmap);
      return changed(control, node, [{ type, name: bitmap }]);
    },
  }),
);

/** Dirty bitmaps of nodes. */
export const bitmaps: readonly Command<Control>[] = [
  command({
    name: 'block-dirty-bitmap-add',
    about: 'Adds a bitmap to a node, which records writes from then on.',
    args: NEW,
    run: (control: Control, args) =>
      changed(control, args.node, bitmapActions('block-dirty-bitmap-add')(control, args)),
  }),
  ...single,
  command({
    name: 'block-dirty-bitmap-merge',
    about: 'Makes dirty in one bitmap what is dirty in others.',
    args: MERGE,
    run: async (control: Control, args) => {
      await prepareMerge(control, args);
      await changed(control, args.node, bitmapActions('block-dirty-bitmap-merge')(control, args));
    },
  }),
  command({
    name: 'x-debug-block-dirty-bitmap-sha256',
    about: 'The SHA-256 over the bits of a bitmap, as QEMU counts it.',
    args: NAMED,
    returns: struct('BlockDirtyBitmapSha256', { sha256: text }),
    run: async ({ graph }: Control, { node: nodeName, name }) => {
      const node = nodeOfBitmap(graph, nodeName);
      checkBitmap(node, name);
      return { sha256: (await node.bitmap(name)).digest() };
    },
  }),
  command({
    name: 'query-block-dirty-bitmap-ranges',
    isOurs: true,
    about:
      'What is dirty in a bitmap, in order. Where there is more, `next` says from where to ask again; what is written meanwhile may be in the answers or not.',
    args: {
      ...NAMED,
      offset: about(optional(size), 'where to begin; default 0'),
      limit: about(optional(count), `ranges at most, 1 to ${MOST_RANGES}; default ${RANGES}`),
    },
    returns: struct('DirtyRanges', { ranges: list(range), next: optional(size) }),
    run: async ({ graph }: Control, { node: nodeName, name, offset = 0, limit = RANGES }) => {
      const node = nodeOfBitmap(graph, nodeName);
      checkBitmap(node, name);
      if (limit < 1 || limit > MOST_RANGES) {
        throw refusal(`Parameter 'limit' expects a number from 1 to ${MOST_RANGES}`);
      }
      const found = [];
      if (offset >= node.size) return { ranges: [] };
      for (const one of (await node.bitmap(name)).ranges(offset)) {
        if (found.length === limit) return { ranges: found, next: one.offset };
        found.push({ offset: one.offset, length: one.length });
      }
      return { ranges: found };
    },
  }),
  ...successors,
];

function changed(
  { graph }: Control,
  node: string,
  actions: readonly BitmapAction[],
): Promise<void> {
  return graph.changeBitmaps({ [node]: actions });
}
