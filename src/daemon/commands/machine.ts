/** What backup programs ask of a machine, as a qemu-storage-daemon answers it. */
import { nodeInfo } from '../blockdev/index.js';
import type { Control } from '../core/index.js';
import {
  about,
  anything,
  type Command,
  command,
  count,
  list,
  struct,
  text,
  word,
} from '../schema/index.js';

const graphNode = struct('XDbgBlockGraphNode', {
  id: count,
  type: word('XDbgBlockGraphNodeType', 'block-backend', 'block-job', 'block-driver'),
  name: text,
});
const permission = word(
  'BlockPermission',
  ...['consistent-read', 'write', 'write-unchanged', 'resize'],
);
const graphEdge = struct('XDbgBlockGraphEdge', {
  parent: count,
  child: count,
  name: text,
  perm: list(permission),
  'shared-perm': list(permission),
});

/** Looks at the whole. */
export const machine: readonly Command<Control>[] = [
  command({
    name: 'query-block',
    about:
      'The drives, by which backup programs find the disks of a machine: here the exports that clients may write.',
    differs: 'A qemu-storage-daemon has none.',
    returns: list(anything),
    run: (control: Control) =>
      control.exports.written().map(({ id, node }) => ({
        ...{ device: id, type: 'unknown', locked: false, removable: false },
        inserted: nodeInfo(control, node),
      })),
  }),
  command({
    name: 'x-debug-query-block-graph',
    about: 'The nodes, exports and jobs, and who uses which node.',
    differs: 'Permissions are not told.',
    returns: struct('XDbgBlockGraph', { nodes: list(graphNode), edges: list(graphEdge) }),
    run: ({ graph }: Control) => {
      const { nodes, users, edges } = graph.toJSON();
      const all = [
        ...users.map(({ name, kind }) => ({
          name,
          type: kind === 'job' ? ('block-job' as const) : ('block-backend' as const),
        })),
        ...nodes.map(({ name }) => ({ name, type: 'block-driver' as const })),
      ].map((one, i) => ({ id: i + 1, ...one }));
      const ids = new Map(all.map(({ id, name }) => [name, id]));
      return {
        nodes: all,
        edges: edges.map(({ parent, child, node }) => ({
          parent: ids.get(parent) ?? 0,
          child: ids.get(node) ?? 0,
          name: child,
          perm: [],
          'shared-perm': [],
        })),
      };
    },
  }),
  command({
    name: 'block-set-write-threshold',
    about:
      'Tells once, by BLOCK_WRITE_THRESHOLD, when the file of an image has grown beyond a size.',
    differs: 'Only for files of images that are open for writing, and within a tenth of a second.',
    args: { 'node-name': text, 'write-threshold': about(count, 'bytes; 0 for none') },
    run: ({ thresholds }: Control, args) =>
      thresholds.set(args['node-name'], args['write-threshold']),
  }),
];
