/** What a device is made of, by its description: one layer over another, and the files or exports that hold each. */
import {
  type ChildRole,
  type DeviceDescription,
  partsOf,
  placeOf,
  plainFile,
} from '../../block/index.js';

/** Where bytes are kept in the end: the description of a file, or of what has a place of its own elsewhere. */
export type Leaf = DeviceDescription;

export interface LayerLeaf {
  readonly leaf: Leaf;
  /** What its bytes are to its layer. */
  readonly role: Exclude<ChildRole, 'below'>;
  /** 0 is the top, which alone is written; what shows through from below it has higher numbers. */
  readonly layer: number;
}

/**
 * Every file and export that a device is made of. Of one that is open that is all there is: its description names what
 * was found through images as well. What lies behind the server of an export is not known here.
 */
export function leavesOf(description: DeviceDescription | undefined): LayerLeaf[] {
  return description === undefined ? [] : leavesFrom(description, 0);
}

function leavesFrom(description: DeviceDescription, layer: number): LayerLeaf[] {
  if (isLeaf(description)) return [{ leaf: description, role: 'disk', layer }];
  return partsOf(description).flatMap(({ description: part, role }) => {
    if (role === 'below') return leavesFrom(part, layer + 1);
    if (role === 'disk') return leavesFrom(part, layer);
    return leavesOf(part).map(({ leaf }) => ({ leaf, role, layer }));
  });
}

export function isLeaf(description: DeviceDescription): boolean {
  return plainFile(description) !== undefined || placeOf(description) !== undefined;
}

/** How a person would name a leaf. */
export function nameOfLeaf(leaf: Leaf): string {
  return plainFile(leaf)?.filename ?? placeOf(leaf) ?? leaf.driver;
}
