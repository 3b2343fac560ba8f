import { realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Node, View } from '../core/index.js';

/** The file that holds what a node stores, if it is one file of this machine: through filters, and that of an image. */
export function fileBelow(view: View, node: Node): string | undefined {
  const below = view
    .from(node)
    .find(({ role }) => role === 'image' || role === 'disk' || role === 'watched disk');
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

/** The path that an image means by a name in its header: looked for from where symbolic links to its folder lead. */
export function backingNameOf(image: string, name: string | undefined): string | undefined {
  return name === undefined ? undefined : resolve(realpathSync(dirname(resolve(image))), name);
}
