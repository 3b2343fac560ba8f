import type { Graph, Node } from '../../graph/index.js';
import { refusal } from './refusal.js';

/**
 * A node by its name.
 *
 * @param device what commands call it that look for a drive too, in QEMU's words.
 * @throws QmpCommandError
 */
export function nodeNamed(graph: Graph, name: string, device = name): Node {
  const node = nodeOf(graph, name);
  if (node !== undefined) return node;
  throw refusal(`Cannot find device='${device}' nor node-name='${name}'`);
}

/** The same in the words of commands that look for a bitmap of it. @throws QmpCommandError */
export function nodeOfBitmap(graph: Graph, name: string): Node {
  const node = nodeOf(graph, name);
  if (node === undefined) throw refusal(`Node '${name}' not found`);
  return node;
}

function nodeOf(graph: Graph, name: string): Node | undefined {
  return graph.nodes.find((one) => one.name === name);
}

/** Throws where somebody uses a bitmap, in QEMU's words. @throws QmpCommandError */
export function checkNotBusy(node: Node, bitmap: string): void {
  if (!node.bitmaps.some(({ name, busy }) => name === bitmap && busy)) return;
  throw refusal(`Bitmap '${bitmap}' is currently in use by another operation and cannot be used`);
}

/** Throws unless a node has a bitmap. @throws QmpCommandError */
export function checkBitmap(node: Node, bitmap: string): void {
  if (node.bitmaps.some(({ name }) => name === bitmap)) return;
  throw refusal(`Dirty bitmap '${bitmap}' not found`);
}
