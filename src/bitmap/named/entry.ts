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

  /** It has missed a write. Needs no memory. */
  lose(): void {
    this.inconsistent = true;
    this.content.lose();
    this.successor?.lose();
  }

  free(): void {
    this.removed = true;
    this.content.free();
    this.successor?.free();
  }
}

/** The contents that a bitmap had before a transaction, and those that it has had since. */
interface Contents {
  readonly content: Content;
  readonly successor: Content | null;
  readonly saved: SavedContent | null;
  readonly since: Set<Content>;
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
  readonly #contents = new Map<Entry, Contents>();
  #names: [string, Entry][] | null = null;

  constructor(entries: Map<string, Entry>) {
    this.#entries = entries;
  }

  /** To be called before the content of a bitmap changes. */
  save(entry: Entry): void {
    if (this.#saved.has(entry) || this.#added.has(entry)) return;
    this.#saved.set(entry, entry.content.save());
  }

  /** To be called before a successor comes or goes. */
  saveAll(entry: Entry): void {
    this.save(entry);
    if (this.#contents.has(entry)) return;
    const { content, successor } = entry;
    const since = new Set([content, ...(successor === null ? [] : [successor])]);
    const saved = successor?.save() ?? null;
    this.#contents.set(entry, { content, successor, saved, since });
  }

  /** A content that has come to a bitmap since {@link saveAll}. */
  keep(entry: Entry, content: Content): void {
    this.#contents.get(entry)?.since.add(content);
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
    for (const [entry, { saved, since }] of this.#contents) {
      if (saved !== null) freeSaved(saved);
      for (const content of since) if (!isOf(entry, content)) content.free();
    }
    for (const [name, entry] of this.#names ?? []) {
      if (this.#entries.get(name) !== entry) entry.free();
    }
    for (const entry of this.#added) {
      if (this.#entries.get(entry.name) !== entry) entry.free();
    }
  }

  /** Newest change first; nothing here can fail. */
  rollback(): void {
    for (const [entry, before] of this.#contents) {
      const isAdded = this.#added.has(entry);
      // An added one frees what it has when it goes.
      const staying = isAdded ? entry : before;
      for (const content of before.since) if (!isOf(staying, content)) content.free();
      if (isAdded) continue;
      entry.content = before.content;
      entry.successor = before.successor;
      if (before.saved !== null) before.successor?.restore(before.saved);
    }
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

function isOf({ content, successor }: Pick<Entry, 'content' | 'successor'>, one: Content): boolean {
  return one === content || one === successor;
}
