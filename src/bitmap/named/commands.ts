import type { Arena } from '../../wasm/index.js';
import { Bitmap, granularityShift } from '../bits/index.js';
import type { AddOptions, BitmapAction, MergeSource } from './actions.js';
import { ACTION_TYPES, checkAddAction, checkMergeAction, checkNameAction } from './actions.js';
import { Content, type StoredBitmap } from './content.js';
import { Entry, type Undo } from './entry.js';
import type { Journal } from './journal.js';
import { CHANGES, checkName, exists, REMOVES, readOnly, refuse, USES, unknown } from './rules.js';

/** How dirt is added to a bitmap. */
export type Addition = 'record' | 'merge';

/** Told before what is stored of a persistent bitmap falls behind; see DirtyBitmaps.store. */
export interface BitmapStore {
  /** The bitmap begins to record. May throw to refuse. */
  beforeRecording(name: string): void;
  /**
   * Dirt is about to be added: the first write since the store was set, or any merge. When this returns it must be
   * durable that what is stored under this name lacks something. May throw to refuse.
   */
  beforeAdding(name: string, by: Addition): void;
}

/** What the commands change: the bitmaps of one device. */
export interface CommandState {
  readonly entries: Map<string, Entry>;
  readonly journal: Journal;
  readonly arena: Arena;
  readonly granularity: number;
  size: number;
  store: BitmapStore | null;
}

/**
 * The commands of a transaction, or a single one. Each checks first, then saves what it is about to
 * change in `undo`, then changes it.
 */
export class Commands {
  readonly #state: CommandState;
  readonly #undo: Undo;

  constructor(state: CommandState, undo: Undo) {
    this.#state = state;
    this.#undo = undo;
  }

  perform(action: BitmapAction): void {
    switch (action.type) {
      case 'add':
        checkAddAction('an add', action);
        this.add(action);
        return;
      case 'merge':
        checkMergeAction('a merge', action);
        this.merge(action.target, action.sources);
        return;
      case 'remove':
      case 'clear':
      case 'enable':
      case 'disable':
      case 'freeze':
      case 'abdicate':
      case 'reclaim':
      case 'drop':
        checkNameAction(`the action ${action.type}`, action);
        this[action.type](action.name);
        return;
      default: {
        const { type } = action as { type: unknown };
        throw new TypeError(`an action is ${ACTION_TYPES}, not ${type}`);
      }
    }
  }

  add({ name, granularity, persistent = false, disabled = false }: AddOptions): Entry {
    const entry = this.#insert(name, granularity ?? this.#state.granularity);
    entry.persistent = persistent;
    if (!disabled) this.#record(entry);
    return entry;
  }

  register(stored: StoredBitmap): void {
    const entry = this.#insert(stored.name, stored.granularity, stored);
    const { readOnly, inconsistent } = stored;
    Object.assign(entry, { persistent: true, readOnly, inconsistent });
    if (stored.recording && !inconsistent) entry.content.enable();
  }

  remove(name: string): void {
    const entry = findEntry(this.#state, name);
    refuse(entry, REMOVES, 'remove');
    // What is stored would come back when the store is opened the next time.
    if (entry.persistent && entry.readOnly) throw readOnly(name, 'remove');
    this.#undo.remove(entry);
  }

  clear(name: string): void {
    const entry = findEntry(this.#state, name);
    refuse(entry, CHANGES, 'clear');
    this.#undo.save(entry);
    entry.content.clear();
  }

  enable(name: string): void {
    const entry = findEntry(this.#state, name);
    refuse(entry, USES, 'enable');
    this.#undo.save(entry);
    this.#record(entry);
  }

  disable(name: string): void {
    const entry = findEntry(this.#state, name);
    refuse(entry, USES, 'disable');
    this.#undo.save(entry);
    entry.content.disable();
  }

  merge(target: string, sources: readonly MergeSource[]): void {
    const entry = findEntry(this.#state, target);
    refuse(entry, CHANGES, 'merge into');
    this.#undo.save(entry);
    for (const source of sources) entry.content.add(this.#bitsOf(source));
    // Last, so that a merge that is refused marks nothing: nobody sees the bits before this returns.
    if (entry.persistent && sources.length > 0) {
      this.#state.store?.beforeAdding(target, 'merge');
    }
  }

  /** Freezes a bitmap; the successor records from now on if the bitmap did. */
  freeze(name: string): void {
    const entry = findEntry(this.#state, name);
    refuse(entry, USES, 'create a successor of');
    this.#undo.saveAll(entry);
    const { journal, arena, size } = this.#state;
    const successor = new Content(
      journal,
      new Bitmap({ size, granularity: entry.granularity, arena }),
    );
    try {
      if (entry.recording) successor.enable();
      entry.content.disable();
    } catch (error) {
      successor.free();
      throw error;
    }
    this.#undo.keep(entry, successor);
    entry.successor = successor;
  }

  /** The successor becomes the bitmap. */
  abdicate(name: string): void {
    const entry = findEntry(this.#state, name);
    const successor = successorOf(entry);
    if (entry.readOnly) throw readOnly(name, 'forget what is dirty in');
    this.#undo.saveAll(entry);
    entry.content = successor;
    entry.successor = null;
  }

  /** The successor's dirt and recording go back to the bitmap. */
  reclaim(name: string): void {
    const entry = findEntry(this.#state, name);
    const successor = successorOf(entry);
    this.#undo.saveAll(entry);
    entry.content.absorb(successor);
    entry.successor = null;
  }

  /** Removes a bitmap and its successor. */
  drop(name: string): void {
    const entry = findEntry(this.#state, name);
    successorOf(entry);
    if (entry.persistent && entry.readOnly) throw readOnly(name, 'remove');
    this.#undo.remove(entry);
  }

  #insert(name: string, granularity: number, stored: StoredBitmap | null = null): Entry {
    checkName(name);
    granularityShift(granularity);
    const { entries, journal, arena, size } = this.#state;
    if (entries.has(name)) throw exists(name);
    const bits = new Bitmap({ size, granularity, arena });
    const entry = new Entry(name, new Content(journal, bits, stored));
    this.#undo.add(entry);
    return entry;
  }

  /** What is stored is marked first: a crash in between only makes it inconsistent for nothing. */
  #record(entry: Entry): void {
    if (entry.recording) return;
    if (entry.persistent) this.#state.store?.beforeRecording(entry.name);
    entry.content.enable();
  }

  /** The bits of a source now; they are only to be read, and at once. */
  #bitsOf(source: MergeSource): Bitmap {
    if (source instanceof Bitmap) return source;
    if (typeof source === 'string') return lookAt(this.#state, source);
    return source.bitmaps.look(source.name);
  }
}

export function findEntry({ entries }: CommandState, name: string): Entry {
  const entry = entries.get(name);
  if (entry === undefined) throw unknown(name, entries.keys());
  return entry;
}

/** The bits of a bitmap that another one is merged from. */
export function lookAt(state: CommandState, name: string): Bitmap {
  const entry = findEntry(state, name);
  refuse(entry, USES, 'merge from');
  return entry.content.look();
}

function successorOf({ name, successor }: Entry): Content {
  if (successor === null) throw new TypeError(`bitmap '${name}' has no successor`);
  return successor;
}
