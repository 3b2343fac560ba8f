/**
 * What each edge needs of its node, and what it lets the other users of that node do. Permissions add up: a filter passes on
 * those of its users, and of all edges to one node each must go with each.
 */
import type { Edge } from './edge.js';
import { called, conflict } from './failures.js';
import type { Node } from './node.js';
import type { View } from './view.js';

/** What a user of a node may do with it. */
export type Permission = 'read' | 'write' | 'resize';

/** All that may be done. */
export const EVERYTHING: readonly Permission[] = ['read', 'write', 'resize'];

interface Needs {
  readonly needs: readonly Permission[];
  readonly shares: readonly Permission[];
}

/** An export or a job says its own; see Root. */
interface Entering extends Needs {
  readonly what: string;
}

const READER: Needs = { needs: ['read'], shares: ['read'] };
/** What a job moves from layer to layer shows the same through the layers above. */
const MOVED: Needs = { needs: ['read'], shares: EVERYTHING };
const WRITER: Needs = { needs: ['read', 'write'], shares: ['read'] };
const NOTHING: Needs = { needs: [], shares: EVERYTHING };
const OWNER: Needs = { needs: EVERYTHING, shares: ['read'] };

/** What an edge needs and shares, as its user is used itself. */
function needsOf(edge: Edge, view: View): Needs {
  const { parent, role } = edge;
  if (view.isPending(edge)) return NOTHING;
  switch (role) {
    case 'root':
      return parent as unknown as Entering;
    case 'image':
    case 'part':
    case 'data file':
      return (parent as Node).writable ? OWNER : READER;
    case 'below':
      return edge.movedBy === undefined ? READER : MOVED;
    case 'target':
      return WRITER;
    case 'snapshot':
      return NOTHING;
    case 'disk':
      return needsOfUsers(parent as Node, view);
    case 'watched disk':
      return watching(parent as Node, needsOfUsers(parent as Node, view));
    case 'filled disk':
      return filling(parent as Node, needsOfUsers(parent as Node, view));
  }
}

function needsOfUsers(filter: Node, view: View): Needs {
  const users = view.to(filter).map((user) => needsOf(user, view));
  return {
    needs: EVERYTHING.filter((each) => users.some(({ needs }) => needs.includes(each))),
    shares: EVERYTHING.filter((each) => users.every(({ shares }) => shares.includes(each))),
  };
}

/** What the users of a node need of it, taken together. */
export function usersNeed(node: Node, view: View): readonly Permission[] {
  return needsOfUsers(node, view).needs;
}

/** What all users of a node let others do with it. */
export function usersShare(node: Node, view: View): readonly Permission[] {
  return needsOfUsers(node, view).shares;
}

/** It must see every write, so nobody may write beside it. Until somebody uses it, it has nothing to see. */
function watching(filter: Node, { needs, shares }: Needs): Needs {
  if (needs.length === 0 && !filter.isWatching) return { needs, shares };
  return { needs, shares: shares.filter(isRead) };
}

/** It writes what the disk shows already: a write beside it could be lost under that. */
function filling(filter: Node, { needs, shares }: Needs): Needs {
  if (needs.length === 0 || !filter.writable) return { needs, shares };
  return { needs: [...new Set([...needs, 'write' as const])], shares: shares.filter(isRead) };
}

function isRead(permission: Permission): boolean {
  return permission === 'read';
}

/** Whether a use of a node does not go with another size of it. */
export function refusesResize(edge: Edge, view: View): boolean {
  return !needsOf(edge, view).shares.includes('resize');
}

/**
 * Throws unless all users of a node go together.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT that names both ends.
 */
export function checkUsers(node: Node, view: View): void {
  const users = view.to(node).map((edge) => ({ edge, ...needsOf(edge, view) }));
  checkNotMoved(node, view);
  for (const one of users) {
    if (one.needs.includes('write') && !node.writable) {
      const message = `${one.edge.label} needs to write ${called(node)}, which is open for reading only: add that with writable: true`;
      throw conflict(message);
    }
    for (const other of users) {
      const refused = one.needs.find((need) => one !== other && !other.shares.includes(need));
      if (refused === undefined) continue;
      const message = `${one.edge.label} needs to ${refused} ${called(node)}, and ${other.edge.label} does not let others ${refused} it: end one of the two uses first`;
      throw conflict(message);
    }
  }
}

/** While a job moves what a node shows, nobody else sees that. Filters may come between its layers. */
function checkNotMoved(node: Node, view: View): void {
  const { movedBy } = node;
  if (movedBy === undefined) return;
  const users = view.to(node);
  // The uppermost goes on showing its disk; who is about that node alone is never led to what comes in its place.
  const isTop = users.some((edge) => edge.movedBy === movedBy && edge.role === 'watched disk');
  const other = users.find((edge) => !isOfMove(edge, movedBy, view) && !(isTop && edge.isPinned));
  if (other === undefined) return;
  const message = `${other.label} would use ${called(node)}, which does not show a disk of its own while ${movedBy} moves it: wait for the end of that`;
  throw conflict(message);
}

function isOfMove({ movedBy, parent }: Edge, by: string, view: View): boolean {
  if (movedBy === by) return true;
  if ((parent as Node).isFilter !== true) return false;
  return view.to(parent as Node).every((edge) => isOfMove(edge, by, view));
}
