/** The work of `blockdev-create`. */
import {
  type BlockDevice,
  createRawFile,
  formatQcow2On,
  newQcow2Bytes,
  type Qcow2Options,
} from '../../block/index.js';
import { throwIfAborted } from '../../errors/index.js';
import { isSamePlace } from '../../files/index.js';
import type { Node } from '../../graph/index.js';
import {
  type BlockdevOptions,
  describe,
  type FileWish,
  fileNameOf,
  type Qcow2Wish,
  qcow2Creation,
} from '../blockdev/index.js';
import { type Control, nodeNamed, refusal } from '../core/index.js';

const PIECE_BYTES = 1 << 20;

/** What an image is made of. */
export interface ImageWish extends Qcow2Wish {
  readonly file: BlockdevOptions | string;
  readonly 'data-file'?: BlockdevOptions | string;
}

/** Makes a file that reads as zero, or empties the one that is there. @throws QmpCommandError; what creating throws. */
export async function makeFile(
  { graph }: Control,
  { filename, size, preallocation = 'off' }: FileWish,
  signal: AbortSignal,
): Promise<void> {
  if (preallocation === 'metadata') throw refusal('Unsupported preallocation mode: metadata');
  const node = graph.nodes.find(({ device }) => {
    return device.path !== undefined && isSamePlace(device.path, filename);
  });
  if (node !== undefined) throw refusal(`'${filename}' is in use by node '${node.name}'`);
  await createRawFile(filename, size, { preallocation, signal });
}

/**
 * Writes an empty image over what a node holds. What it held is gone.
 *
 * @param user what the job is called while it uses the node.
 * @throws QmpCommandError; LacunaError ERR_GRAPH_CONFLICT where others use the node; what writing throws.
 */
export async function makeImage(
  control: Control,
  wish: ImageWish,
  user: string,
  signal: AbortSignal,
): Promise<void> {
  const opened: Node[] = [];
  const nodeOf = async (part: BlockdevOptions | string): Promise<Node> => {
    if (typeof part === 'string') return nodeNamed(control.graph, part);
    const description = describe(part, control);
    const node = await control.graph.add(description, { writable: true, signal });
    opened.push(node);
    return node;
  };
  try {
    const file = await nodeOf(wish.file);
    const data = wish['data-file'] === undefined ? undefined : await nodeOf(wish['data-file']);
    if (data === file) throw refusal(`node '${file.name}' cannot be its own data file`);
    const options = { ...qcow2Creation(wish, data && fileNameOf(control, data)), signal };
    if (data !== undefined) await grow(control, data, options.size);
    await format(control, file, options, user);
  } finally {
    for (const node of opened.reverse()) await control.graph.remove(node);
  }
}

async function format(
  control: Control,
  file: Node,
  options: Qcow2Options & { signal: AbortSignal },
  user: string,
): Promise<void> {
  const { graph } = control;
  const used = graph.edges.find(({ node }) => node === file.name);
  if (used !== undefined) {
    throw refusal(
      `node '${file.name}' is used by '${used.parent}' as '${used.child}': end that first`,
    );
  }
  const bytes = await newQcow2Bytes(options);
  await grow(control, file, bytes);
  const root = await graph.addExport({ name: user, node: file, writable: true, shares: ['read'] });
  try {
    await erase(root, bytes, options);
    await formatQcow2On(root, options);
    await root.flush();
  } finally {
    await root.close();
  }
}

async function grow({ graph }: Control, node: Node, bytes: number): Promise<void> {
  if (node.size < bytes) await graph.resize(node, bytes);
}

/** What is mapped at once must not show what the node has held before. */
async function erase(
  device: BlockDevice,
  bytes: number,
  { preallocation = 'off', dataFile, signal }: Qcow2Options & { signal: AbortSignal },
): Promise<void> {
  if (preallocation === 'off' || dataFile !== undefined) return;
  if (preallocation !== 'full' && device.capabilities.zero) {
    await device.zero(0, bytes, { unmap: preallocation === 'metadata', signal });
    return;
  }
  const zeroes = new Uint8Array(Math.min(PIECE_BYTES, bytes));
  for (let at = 0; at < bytes; at += zeroes.length) {
    throwIfAborted(signal);
    await device.write(at, zeroes.subarray(0, Math.min(zeroes.length, bytes - at)));
  }
}
