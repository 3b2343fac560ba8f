import { called, conflict } from './failures.js';
import type { Node } from './node.js';
import { refusesResize } from './permissions.js';
import type { View } from './view.js';

/**
 * Throws unless the disk of a node may become larger while it is in use.
 *
 * @throws RangeError where it would become smaller. LacunaError ERR_GRAPH_CONFLICT where that would change what somebody keeps, works on,
 * or sees through a filter, or where a user does not let others do it.
 */
export function checkResize(node: Node, size: number, view: View): void {
  if (!Number.isSafeInteger(size) || size < node.size) {
    throw new RangeError(
      `size must be ${node.size} bytes or more, as a disk in use only grows, not ${size}`,
    );
  }
  if (!node.writable) {
    throw conflict(`${called(node)} is open for reading only: add it with writable: true`);
  }
  if (node.grows) {
    throw conflict(`${called(node)} is the file of an image, which makes it as large as it needs`);
  }
  for (const each of view.above(node)) {
    const { keepsOld, heldBy, isOfJob } = each as Node;
    if (!keepsOld && !isOfJob && heldBy === undefined) continue;
    const message = `${called(each as Node)} keeps or copies what the disk of ${called(node)} is, as large as it was: end that first`;
    throw conflict(message);
  }
  for (const edge of view.to(node)) {
    if (edge.parent.what === 'node' && (edge.parent as Node).isFilter) {
      const message = `${called(edge.parent)} shows ${called(node)} as large as it was: take the filter out first`;
      throw conflict(message);
    }
    if (!refusesResize(edge, view)) continue;
    throw conflict(`${edge.label} does not let others resize ${called(node)}: end that use first`);
  }
}
