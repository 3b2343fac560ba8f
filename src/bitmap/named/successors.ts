import { Bitmap } from '../bits/index.js';
import { type Device, findEntry } from './commands.js';
import { Content } from './content.js';
import type { Entry } from './entry.js';
import { readOnly, refuse, USES } from './rules.js';

/** Freezes a bitmap; the successor records from now on if the bitmap did. */
export function createSuccessor(device: Device, name: string): void {
  const entry = findEntry(device, name);
  refuse(entry, USES, 'create a successor of');
  const { journal, arena, size } = device;
  const bits = new Bitmap({ size, granularity: entry.granularity, arena });
  const successor = new Content(journal, bits);
  try {
    if (entry.recording) successor.enable();
    entry.content.disable();
  } catch (error) {
    successor.free();
    throw error;
  }
  entry.successor = successor;
}

/** The successor becomes the bitmap. */
export function abdicate(device: Device, name: string): void {
  const entry = findEntry(device, name);
  const successor = successorOf(entry);
  if (entry.readOnly) throw readOnly(name, 'forget what is dirty in');
  entry.content.free();
  entry.content = successor;
  entry.successor = null;
}

/** The successor's dirt and recording go back to the bitmap. */
export function reclaim(device: Device, name: string): void {
  const entry = findEntry(device, name);
  entry.content.absorb(successorOf(entry));
  entry.successor = null;
}

function successorOf({ name, successor }: Entry): Content {
  if (successor === null) throw new TypeError(`bitmap '${name}' has no successor`);
  return successor;
}
