/** The locks of files follow what their nodes are used for, so that other programs may do with a file what no user of its node minds. */
import type { LockAccess } from '../../block/index.js';
import type { Node } from './node.js';
import { usersNeed, usersShare } from './permissions.js';
import type { View } from './view.js';

/** The later keeps others from more. */
const RANKS: readonly LockAccess[] = ['none', 'read', 'write'];

const isMore = (a: LockAccess, b: LockAccess) => RANKS.indexOf(a) > RANKS.indexOf(b);

/** What the users of a node need of its file. */
function accessFor(node: Node, view: View): LockAccess {
  const needs = usersNeed(node, view);
  if (needs.includes('write')) return 'write';
  if (needs.length > 0 || !usersShare(node, view).includes('write')) return 'read';
  // They must not lack what others write.
  return node.hasBitmapFile || node.bitmaps.length > 0 ? 'read' : 'none';
}

/**
 * Locks files as a change needs it, before it is made. {@link lowerLocks} takes back what is too much.
 *
 * @param view how nodes are used then.
 * @param least of each.
 * @throws LacunaError ERR_DEVICE_LOCKED where others use a file in a way that does not go with it; ERR_DEVICE_OPEN.
 */
export async function raiseLocks(
  nodes: Iterable<Node>,
  view: View,
  least: LockAccess = 'none',
): Promise<void> {
  for (const node of nodes) {
    const { lock } = node.driver;
    if (lock === undefined) continue;
    const needed = accessFor(node, view);
    const access = isMore(needed, least) ? needed : least;
    if (isMore(access, lock.access)) await lock.change(access);
  }
}

/** Gives up what nobody needs any more. Where that fails a file is locked more than it must be until the next time. */
export async function lowerLocks(nodes: Iterable<Node>, view: View): Promise<void> {
  for (const node of nodes) {
    const { lock } = node.driver;
    if (lock === undefined || lock.access === 'none') continue;
    const access = accessFor(node, view);
    if (isMore(lock.access, access)) await lock.change(access).catch(() => {});
  }
}
