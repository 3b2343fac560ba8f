/** What can be done to bitmaps, by commands and in transactions. */
import type { BitmapAction, MergeSource } from '../../bitmap/index.js';
import {
  type Control,
  checkBitmap,
  checkNotBusy,
  nodeNamed,
  nodeOfBitmap,
  refusal,
} from '../core/index.js';
import { about, count, flag, optional, text, type ValuesOf } from '../schema/index.js';
import { bitmapList } from './types.js';

export const NAMED = { node: text, name: text } as const;

export const NEW = {
  node: text,
  name: text,
  granularity: about(optional(count), 'bytes that one bit stands for; default by the image'),
  persistent: about(optional(flag), 'it is kept in the image; default false'),
  disabled: about(optional(flag), 'it does not record yet; default false'),
} as const;

export const MERGE = {
  node: text,
  target: about(text, 'the bitmap that becomes dirty'),
  bitmaps: about(bitmapList, 'those that are merged into it, which stay as they are'),
} as const;

type New = ValuesOf<typeof NEW>;
type Merge = ValuesOf<typeof MERGE>;
type Named = ValuesOf<typeof NAMED>;

/** Bitmaps that an earlier action of the same transaction adds. */
type Added = ReadonlySet<string>;
const NONE: Added = new Set();

type Actions = (control: Control, args: never, added: Added) => BitmapAction[];

/** Bytes of the longest name of a bitmap. */
const LONGEST_NAME = 1023;

const ACTIONS: Readonly<Record<string, Actions>> = {
  'block-dirty-bitmap-add': added,
  'block-dirty-bitmap-remove': done('remove'),
  'block-dirty-bitmap-clear': done('clear'),
  'block-dirty-bitmap-enable': done('enable'),
  'block-dirty-bitmap-disable': done('disable'),
  'block-dirty-bitmap-merge': merged,
};

/** What a command of this name does. @throws QmpCommandError, when it is called, for what cannot be. */
export function bitmapActions(
  command: string,
): (control: Control, args: object, added?: Added) => BitmapAction[] {
  const actions = ACTIONS[command];
  return (control, args, earlier = NONE) => actions(control, args as never, earlier);
}

/** The names of all of them. */
export const BITMAP_COMMANDS = Object.keys(ACTIONS);

function added({ graph }: Control, args: New, earlier: Added): BitmapAction[] {
  const { node: nodeName, name, granularity, persistent = false, disabled = false } = args;
  const node = nodeNamed(graph, nodeName);
  if (name === '') throw refusal('Bitmap name cannot be empty');
  if (Buffer.byteLength(name) > LONGEST_NAME) throw refusal(`Bitmap name too long: ${name}`);
  if (node.bitmaps.some((one) => one.name === name) || isAdded(earlier, nodeName, name)) {
    throw refusal(`Bitmap already exists: ${name}`);
  }
  if (granularity !== undefined && !isGranularity(granularity)) {
    throw refusal('Granularity must be power of 2 and at least 512');
  }
  if (node.grows) {
    throw refusal(`node '${nodeName}' is the file of an image, which has no bitmaps of its own`);
  }
  if (persistent && !node.log.canKeep) {
    throw refusal(`Can't store persistent bitmaps to ${nodeName}: Operation not supported`);
  }
  return [
    { type: 'add', name, persistent, disabled, ...(granularity !== undefined && { granularity }) },
  ];
}

function isGranularity(bytes: number): boolean {
  return bytes >= 512 && bytes <= 2 ** 31 && Number.isInteger(Math.log2(bytes));
}

function done(type: 'remove' | 'clear' | 'enable' | 'disable') {
  return ({ graph }: Control, { node, name }: Named, earlier: Added): BitmapAction[] => {
    const found = nodeOfBitmap(graph, node);
    if (!isAdded(earlier, node, name)) {
      checkBitmap(found, name);
      checkNotBusy(found, name);
    }
    return [{ type, name }];
  };
}

/** Where the bitmaps of other nodes must be in memory before they can be merged. @throws QmpCommandError */
export async function prepareMerge(
  { graph }: Control,
  { node: own, target, bitmaps }: Merge,
  earlier: Added = NONE,
): Promise<void> {
  const names = bitmaps.map((one) => (typeof one === 'string' ? { node: own, name: one } : one));
  for (const { node: nodeName, name } of [{ node: own, name: target }, ...names]) {
    const node = nodeOfBitmap(graph, nodeName);
    if (isAdded(earlier, nodeName, name)) continue;
    checkBitmap(node, name);
    await node.bitmap(name);
  }
}

function isAdded(earlier: Added, node: string, name: string): boolean {
  return earlier.has(JSON.stringify([node, name]));
}

function merged({ graph }: Control, { node, target, bitmaps }: Merge): BitmapAction[] {
  const sources = bitmaps.map((source): MergeSource => {
    if (typeof source === 'string' || source.node === node) {
      return typeof source === 'string' ? source : source.name;
    }
    return { bitmaps: nodeNamed(graph, source.node).log.bitmaps, name: source.name };
  });
  return [{ type: 'merge', target, sources }];
}
