/** What a device is made of, by its description: one layer over another, and the files or exports that hold each. */
import type { DeviceDescription, FileDescription, NbdDescription } from '../../block/index.js';

/** Where bytes are kept in the end. */
export type Leaf = FileDescription | NbdDescription;

/**
 * What the bytes of a leaf are to its layer: the disk itself, byte for byte, or parts of an image, whose clusters may
 * lie anywhere.
 */
export type LeafRole = 'disk' | 'image' | 'data file';

export interface LayerLeaf {
  readonly leaf: Leaf;
  readonly role: LeafRole;
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
  if (description.driver !== 'qcow2') return [];
  const { file, backing, 'data-file': dataFile } = description;
  const own = (part: DeviceDescription | undefined, role: LeafRole) =>
    leavesOf(part).map(({ leaf }) => ({ leaf, role, layer }));
  const below = backing ? leavesFrom(backing, layer + 1) : [];
  return [...own(file, 'image'), ...own(dataFile, 'data file'), ...below];
}

function isLeaf(description: DeviceDescription): description is Leaf {
  return description.driver === 'file' || description.driver === 'nbd';
}
