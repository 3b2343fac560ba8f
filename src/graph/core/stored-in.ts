import type { Node } from './node.js';
import type { View } from './view.js';

const OWN_BYTES: readonly string[] = ['image', 'disk', 'watched disk', 'filled disk'];

/** The file that holds what a node stores, if it is one file of this machine: through filters, and that of an image. */
export function fileBelow(view: View, node: Node): string | undefined {
  const below = view.from(node).find(({ role }) => OWN_BYTES.includes(role));
  return below === undefined ? node.driver.path : fileBelow(view, below.to);
}

/** The format of what is in that file; undefined where it is none that an image can name. */
export function formatBelow(view: View, node: Node): string | undefined {
  if (node.isFilter) {
    const [{ to }] = view.from(node);
    return formatBelow(view, to);
  }
  // A name means the disk as it is now, not what a snapshot kept.
  if ((node.driver.description as { snapshot?: string } | undefined)?.snapshot) return undefined;
  if (view.from(node).some(({ role }) => role === 'image')) return node.driverName;
  return node.driver.path === undefined ? undefined : 'raw';
}
