import { isDeepStrictEqual } from 'node:util';
import type { Reopening } from '../../graph/index.js';
import { type BlockdevOptions, blockdevOptions, CHILDREN } from '../blockdev/index.js';
import { type Control, nodeNamed, refusal } from '../core/index.js';
import { about, type Command, command, list, text } from '../schema/index.js';

/** What may be said otherwise, since it has no effect. */
const WITHOUT_EFFECT = ['discard', 'auto-read-only', 'aio', 'read-only', 'node-name'];

/** Changes of nodes that are in use. */
export const reopenings: readonly Command<Control>[] = [
  command({
    name: 'blockdev-reopen',
    about:
      'Opens nodes for writing too, or ends that, and gives them other nodes as their children, all of them or none. Where a child becomes another one, the bitmaps above are all dirty.',
    differs:
      'Only read-only, and which nodes the children are, can change; a backing neither comes nor goes.',
    args: { options: about(list(blockdevOptions), 'the nodes, each described as a whole') },
    run: async (control: Control, { options }) => {
      await control.graph.reopen(options.map((one) => reopening(control, one)));
      for (const one of options) control.said.set(one['node-name'] as string, one);
    },
  }),
  command({
    name: 'change-backing-file',
    about: 'Lets an image name its backing file otherwise, and changes nothing else.',
    differs: 'The image names the format of the backing file, where QEMU before 8.0 names its own.',
    args: {
      device: about(text, 'the uppermost node above the image'),
      'image-node-name': about(text, 'the image'),
      'backing-file': about(text, 'the name that stands in it from then on'),
    },
    run: async ({ graph }: Control, args) => {
      const { device, 'image-node-name': name, 'backing-file': filename } = args;
      nodeNamed(graph, device);
      const above = graph.edges.find(({ node, child }) => node === device && child !== 'root');
      if (above !== undefined) throw refusal('Need a root block node');
      nodeNamed(graph, name, '');
      const below = (node: string) =>
        graph.edges.find(({ parent, child }) => parent === node && child === 'backing')?.node;
      if (below(name) === undefined) {
        throw refusal('not allowing backing file change on an image without a backing file');
      }
      let layer: string | undefined = device;
      while (layer !== undefined && layer !== name) layer = below(layer) ?? fileUnder(graph, layer);
      if (layer === undefined)
        throw refusal(`'${device}' and image file are not in the same chain`);
      await graph.nameBacking(name, filename);
    },
  }),
];

/** What lies below a filter. */
function fileUnder(graph: Control['graph'], name: string): string | undefined {
  if (!graph.node(name).isFilter) return undefined;
  return graph.edges.find(({ parent, child }) => parent === name && child === 'file')?.node;
}

/** The node that clients know, below what jobs have put above it for as long as they run. */
function withoutJobs(graph: Control['graph'], name: string): string {
  const below = graph.node(name).isOfJob ? fileUnder(graph, name) : undefined;
  return below === undefined ? name : withoutJobs(graph, below);
}

/** @throws QmpCommandError */
function reopening({ graph, said }: Control, wanted: BlockdevOptions): Reopening {
  const { 'node-name': name } = wanted;
  if (name === undefined) throw refusal('node-name not specified');
  if (!graph.nodes.some((node) => node.name === name)) {
    throw refusal(`Failed to find node with node-name='${name}'`);
  }
  const before = said.get(name);
  if (before === undefined) {
    throw refusal(`node '${name}' was not added by blockdev-add, and stays as it is`);
  }
  const now = new Map(
    graph.edges
      .filter(({ parent }) => parent === name)
      .map(({ child, node }) => [child, withoutJobs(graph, node)]),
  );
  if (now.has('backing') && wanted.backing === undefined) {
    throw refusal(`backing is missing for '${name}'`);
  }
  const children: Record<string, string> = {};
  for (const key of new Set([...Object.keys(before), ...Object.keys(wanted)])) {
    if (WITHOUT_EFFECT.includes(key) || isDeepStrictEqual(before[key], wanted[key])) continue;
    if (!CHILDREN.includes(key)) throw refusal(`Cannot change the option '${key}'`);
    const child = wanted[key];
    const isSame = now.get(key) === child || (child === null && !now.has(key));
    if (isSame || (child === undefined && !now.has(key))) continue;
    if (typeof child !== 'string' || !now.has(key)) {
      throw refusal(`Cannot change the option '${key}': say the name of another node there`);
    }
    nodeNamed(graph, child);
    children[key] = child;
  }
  // What was said of a child before may not be what it is now.
  for (const [key, child] of Object.entries(wanted)) {
    if (!CHILDREN.includes(key) || typeof child !== 'string' || now.get(key) === child) continue;
    if (now.has(key)) children[key] = nodeNamed(graph, child).name;
  }
  return { node: name, writable: wanted['read-only'] !== true, children };
}
