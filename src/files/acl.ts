/** POSIX access control lists as the system keeps them: version, then entries of tag, permissions and id. */

import { viewOf } from '../util/index.js';

/** The attribute that holds the list of a file. */
export const ACL = 'system.posix_acl_access';
/** What new files in a folder get. */
export const DEFAULT_ACL = 'system.posix_acl_default';

const HEAD_BYTES = 4;
const ENTRY_BYTES = 8;
const Tag = { user: 0x02, owningGroup: 0x04, group: 0x08, mask: 0x10 } as const;

/** What a list allows, in the bits of a mode (4 read, 2 write, 1 execute). */
export interface AclRights {
  /** The owning group, which the mode of a file with a list does not tell: that shows the mask. */
  readonly group: number;
  /** What all may who are named, each by itself. */
  readonly named: number;
}

export function rightsIn(acl: Uint8Array): AclRights {
  const view = viewOf(acl);
  const entries: [tag: number, permissions: number][] = [];
  for (let at = HEAD_BYTES; at + ENTRY_BYTES <= acl.length; at += ENTRY_BYTES) {
    entries.push([view.getUint16(at, true), view.getUint16(at + 2, true) & 7]);
  }
  const mask = entries.find(([tag]) => tag === Tag.mask)?.[1] ?? 7;
  let group = 0;
  let named = 7;
  for (const [tag, permissions] of entries) {
    const allowed = permissions & mask;
    if (tag === Tag.owningGroup) group = allowed;
    if (tag === Tag.user || tag === Tag.group) named &= allowed;
  }
  return { group, named };
}

/** The same list, in which the owning group may nothing: it is another group now. */
export function withoutGroup(acl: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(acl);
  const view = viewOf(changed);
  for (let at = HEAD_BYTES; at + ENTRY_BYTES <= acl.length; at += ENTRY_BYTES) {
    if (view.getUint16(at, true) === Tag.owningGroup) view.setUint16(at + 2, 0, true);
  }
  return changed;
}
