import type { Graph, Node } from '../../graph/index.js';
import { refusal } from './refusal.js';

/** A node by its name. @throws QmpCommandError */
export function nodeNamed(graph: Graph, name: string, device = name): Node {
  const node = graph.nodes.find((one) => one.name === name);
  if (node !== undefined) return node;
  throw refusal(`Cannot find device='${device}' nor node-name='${name}'`);
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
