import { type BlockdevOptions, blockdevOptions, describe, nodeInfo } from '../blockdev/index.js';
import { type Control, isId, nodeNamed, refusal } from '../core/index.js';
import {
  about,
  anything,
  type Command,
  command,
  flag,
  list,
  optional,
  size,
  text,
} from '../schema/index.js';

/** Nodes of the graph. */
export const nodes: readonly Command<Control>[] = [
  command({
    name: 'blockdev-add',
    about: 'Opens a node, and with it what is described below it.',
    boxed: blockdevOptions,
    run: (control, options) => addNode(control, options),
  }),
  command({
    name: 'blockdev-del',
    about: 'Closes a node that nobody uses, and what was opened with it.',
    args: { 'node-name': text },
    run: async ({ graph, drivers, described, said }: Control, { 'node-name': name }) => {
      if (!graph.nodes.some((node) => node.name === name)) {
        throw refusal(`Failed to find node with node-name='${name}'`);
      }
      const use = graph.edges.find(({ node }) => node === name);
      if (use?.child === 'backing') {
        throw refusal(`Node '${name}' is busy: node is used as backing hd of '${use.parent}'`);
      }
      if (use?.child === 'root') throw refusal(`Node ${name} is in use`);
      if (use !== undefined) throw refusal(`Block device ${name} is in use`);
      await graph.remove(name);
      drivers.delete(name);
      described.delete(name);
      forgetGone({ graph, said });
    },
  }),
  command({
    name: 'query-named-block-nodes',
    about: 'The nodes, with their images and bitmaps.',
    args: {
      flat: about(optional(flag), 'has no effect: images are never told with their backing'),
    },
    returns: list(anything),
    run: (control: Control) => control.graph.nodes.map((node) => nodeInfo(control, node)).reverse(),
  }),
  command({
    name: 'block_resize',
    about: 'Makes the disk of a node larger. What is added reads as zero.',
    differs: 'A disk is never made smaller.',
    args: {
      device: about(optional(text), 'has no effect beside node-name'),
      'node-name': optional(text),
      size,
    },
    run: async ({ graph }: Control, { device, 'node-name': name, size: bytes }) => {
      const found = name ?? device ?? '';
      if (!graph.nodes.some((node) => node.name === found)) {
        throw refusal(`Cannot find device='${device ?? ''}' nor node-name='${name ?? ''}'`);
      }
      await graph.resize(found, bytes);
    },
  }),
  command({
    name: 'blockdev-replace-child',
    isOurs: true,
    about:
      'Lets a node, an export or a job use another node in the place of the one that it uses, if that is the one that is expected.',
    args: {
      parent: about(text, 'the node, export or job'),
      child: about(text, '`file`, `backing` and so on; `root` for an export or a job'),
      expected: about(text, 'the node that it uses until now'),
      replacement: about(text, 'the node that it uses from then on'),
      unsafe: about(
        optional(flag),
        'it may show another disk from then on; bitmaps above are all dirty then',
      ),
    },
    run: ({ graph }: Control, replacement) => graph.replaceChild(replacement),
  }),
];

/** @throws QmpCommandError; what opening throws. */
export async function addNode(
  control: Control,
  options: BlockdevOptions,
  files = control.files,
): Promise<void> {
  const { graph, drivers } = control;
  const name = options['node-name'];
  if (name === undefined) throw refusal("'node-name' must be specified for the root node");
  const named = namedIn(options);
  for (const [each] of named) {
    if (!isId(each)) throw refusal(`Invalid node-name: '${each}'`);
    if (graph.nodes.some((node) => node.name === each)) {
      throw refusal(`Duplicate nodes with node-name='${each}'`);
    }
  }
  for (const mentioned of mentionedIn(options)) nodeNamed(graph, mentioned);
  const description = describe(options, { files, objects: control.objects });
  await graph.add(description, { writable: options['read-only'] !== true });
  control.described.set(name, description);
  for (const [each, own] of named) {
    drivers.set(each, own.driver);
    control.said.set(each, own);
  }
}

/** What was described inside a node goes with it. */
function forgetGone({ graph, said }: Pick<Control, 'graph' | 'said'>): void {
  const names = new Set(graph.nodes.map(({ name }) => name));
  for (const name of [...said.keys()]) if (!names.has(name)) said.delete(name);
}

function* childrenOf(options: BlockdevOptions): Generator<BlockdevOptions | string> {
  for (const key of ['file', 'backing', 'data-file', 'target']) {
    const child = options[key] as BlockdevOptions | string | null | undefined;
    if (child !== undefined && child !== null) yield child;
  }
}

/** All names that a description gives, with what is said of each. */
function namedIn(options: BlockdevOptions): [string, BlockdevOptions][] {
  const name = options['node-name'];
  const below = [...childrenOf(options)].filter((child) => typeof child !== 'string');
  return [
    ...(name === undefined ? [] : [[name, options] as [string, BlockdevOptions]]),
    ...below.flatMap(namedIn),
  ];
}

/** All nodes that a description says by their names. */
function mentionedIn(options: BlockdevOptions): string[] {
  return [...childrenOf(options)].flatMap((child) =>
    typeof child === 'string' ? [child] : mentionedIn(child),
  );
}
