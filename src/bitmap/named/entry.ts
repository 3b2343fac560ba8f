import type { Content, SavedContent } from './content.js';
import { freeSaved } from './content.js';

/** Somebody who needs a bitmap to stay as it is; see DirtyBitmaps.acquire. */
export interface BitmapUser {
  /** Who that is, as errors name it. */
  readonly user: string;
}

/** A named bitmap with its states, as the commands see it. */
export class Entry {
  /** What is dirty. With a successor, as it was when that one began. */
  content: Content;
  /** Records in the place of the content until it is known what becomes of that. */
  successor: Content | null = null;
  readonly users = new Set<BitmapUser>();
  persistent = false;
  readOnly = false;
  inconsistent = false;
  removed = false;
  /** Whether the store knows that writes are recorded which it does not have. */
  told = false;

  constructor(
    readonly name: string,
    content: Content,
  ) {
    this.content = content;
  }

  get granularity(): number {
    return this.content.granularity;
  }

  get busy(): boolean {
    return this.users.size > 0 || this.successor !== null;
  }

  get recording(): boolean {
    return (this.successor ?? this.content).recording;
  }

  free(): void {
    this.removed = true;
    this.content.free();
    this.successor?.free();
  }
}

/**
 * What takes back a command, or many in one transaction. Each bitmap is saved before it is first
 * changed, as a copy-on-write snapshot, so saving costs nothing and going back needs no memory. What
 * is removed is only freed in the end.
 */
export class Undo {
  readonly #entries: Map<string, Entry>;
  readonly #saved = new Map<Entry, SavedContent>();
  readonly #added = new Set<Entry>();
  #names: [string, Entry][] | null = null;

  constructor(entries: Map<string, Entry>) {
    this.#entries = entries;
  }

  /** To be called before the content of a bitmap changes. */
  save(entry: Entry): void {
    if (this.#saved.has(entry) || this.#added.has(entry)) return;
    this.#saved.set(entry, entry.content.save());
  }

  add(entry: Entry): void {
    this.#names ??= [...this.#entries];
    this.#added.add(entry);
    this.#entries.set(entry.name, entry);
  }

  remove(entry: Entry): void {
    this.#names ??= [...this.#entries];
    this.#entries.delete(entry.name);
    entry.removed = true;
  }

  /** What was done stays: gives back what going back would have needed. */
  free(): void {
    for (const saved of this.#saved.values()) freeSaved(saved);
    for (const [name, entry] of this.#names ?? []) {
      if (this.#entries.get(name) !== entry) entry.free();
    }
    for (const entry of this.#added) {
      if (this.#entries.get(entry.name) !== entry) entry.free();
    }
  }

  /** Newest change first; nothing here can fail. */
  rollback(): void {
    for (const [entry, saved] of [...this.#saved].reverse()) entry.content.restore(saved);
    if (this.#names === null) return;
    this.#entries.clear();
    for (const [name, entry] of this.#names) {
      entry.removed = false;
      this.#entries.set(name, entry);
    }
    for (const entry of this.#added) entry.free();
  }
}
