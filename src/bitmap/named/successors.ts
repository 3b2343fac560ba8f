import { Bitmap } from '../bits/index.js';
import { type CommandState, findEntry } from './commands.js';
import { Content } from './content.js';
import type { Entry } from './entry.js';
import { readOnly, refuse, USES } from './rules.js';

/** Freezes a bitmap; the successor records from now on if the bitmap did. */
export function createSuccessor(state: CommandState, name: string): void {
  const entry = findEntry(state, name);
  refuse(entry, USES, 'create a successor of');
  const { journal, arena, size } = state;
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
export function abdicate(state: CommandState, name: string): void {
  const entry = findEntry(state, name);
  const successor = successorOf(entry);
  if (entry.readOnly) throw readOnly(name, 'forget what is dirty in');
  entry.content.free();
  entry.content = successor;
  entry.successor = null;
}

/** The successor's dirt and recording go back to the bitmap. */
export function reclaim(state: CommandState, name: string): void {
  const entry = findEntry(state, name);
  entry.content.absorb(successorOf(entry));
  entry.successor = null;
}

function successorOf({ name, successor }: Entry): Content {
  if (successor === null) throw new TypeError(`bitmap '${name}' has no successor`);
  return successor;
}
