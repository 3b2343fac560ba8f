import type { BitmapAction } from 'lacuna/bitmap';
import { Model } from './model.js';

/** What is wanted of a name: a set of granules with flags, and no thought for speed. */
export interface ModelBitmap {
  dirty: Model;
  enabled: boolean;
  persistent: boolean;
  readOnly: boolean;
  inconsistent: boolean;
  users: number;
  successor: { dirty: Model; enabled: boolean } | null;
}

/** A refusal, with the code that the real one must throw. */
export class Refused extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

/** What DirtyBitmaps must do, in the plainest way: every write goes to every bitmap. */
export class DirtyModel {
  bitmaps = new Map<string, ModelBitmap>();

  constructor(
    public size: number,
    readonly granularity: number,
  ) {}

  record(offset: number, length: number): void {
    const all = [...this.bitmaps.values()];
    if (all.some((bitmap) => bitmap.readOnly && recording(bitmap))) {
      throw new Refused('ERR_BITMAP_READONLY');
    }
    for (const bitmap of all) {
      if (bitmap.enabled) bitmap.dirty.set(offset, length);
      if (bitmap.successor?.enabled) bitmap.successor.dirty.set(offset, length);
    }
  }

  perform(action: BitmapAction): void {
    if (action.type === 'add') this.add(action);
    else if (action.type === 'merge') this.merge(action.target, action.sources as string[]);
    else if (action.type === 'freeze') this.createSuccessor(action.name);
    else this[action.type](action.name);
  }

  transaction(actions: readonly BitmapAction[]): void {
    const before = new Map([...this.bitmaps].map(([name, bitmap]) => [name, copy(bitmap)]));
    try {
      for (const action of actions) this.perform(action);
    } catch (error) {
      this.bitmaps = before;
      throw error;
    }
  }

  add(options: { name: string; granularity?: number; persistent?: boolean; disabled?: boolean }) {
    const { name, granularity = this.granularity, persistent = false, disabled = false } = options;
    if (this.bitmaps.has(name)) throw new Refused('ERR_BITMAP_EXISTS');
    this.bitmaps.set(name, {
      dirty: new Model(this.size, granularity),
      enabled: !disabled,
      persistent,
      readOnly: false,
      inconsistent: false,
      users: 0,
      successor: null,
    });
  }

  remove(name: string): void {
    const { persistent, readOnly } = this.find(name, 'busy');
    if (persistent && readOnly) throw new Refused('ERR_BITMAP_READONLY');
    this.bitmaps.delete(name);
  }

  clear(name: string): void {
    this.find(name, 'busy', 'readOnly', 'inconsistent').dirty.bits.fill(0);
  }

  enable(name: string): void {
    this.find(name, 'busy', 'inconsistent').enabled = true;
  }

  disable(name: string): void {
    this.find(name, 'busy', 'inconsistent').enabled = false;
  }

  merge(target: string, sources: readonly string[]): void {
    const { dirty } = this.find(target, 'busy', 'readOnly', 'inconsistent');
    const before = dirty.bits.slice();
    try {
      for (const name of sources)
        dirty.combine(this.find(name, 'busy', 'inconsistent').dirty, 'merge');
    } catch (error) {
      dirty.bits = before;
      throw error;
    }
  }

  createSuccessor(name: string): void {
    const bitmap = this.find(name, 'busy', 'inconsistent');
    const dirty = new Model(this.size, bitmap.dirty.granularity);
    bitmap.successor = { dirty, enabled: bitmap.enabled };
    bitmap.enabled = false;
  }

  abdicate(name: string): void {
    const bitmap = this.find(name);
    if (bitmap.successor === null) throw new TypeError();
    if (bitmap.readOnly) throw new Refused('ERR_BITMAP_READONLY');
    Object.assign(bitmap, bitmap.successor);
    bitmap.successor = null;
  }

  reclaim(name: string): void {
    const bitmap = this.find(name);
    if (bitmap.successor === null) throw new TypeError();
    bitmap.dirty.combine(bitmap.successor.dirty, 'merge');
    bitmap.enabled = bitmap.successor.enabled;
    bitmap.successor = null;
  }

  drop(name: string): void {
    const { successor, persistent, readOnly } = this.find(name);
    if (successor === null) throw new TypeError();
    if (persistent && readOnly) throw new Refused('ERR_BITMAP_READONLY');
    this.bitmaps.delete(name);
  }

  acquire(name: string): void {
    const bitmap = this.find(name, 'inconsistent');
    if (bitmap.successor !== null) throw new Refused('ERR_BITMAP_BUSY');
    bitmap.users++;
  }

  resize(size: number): void {
    for (const name of this.bitmaps.keys()) this.find(name, 'busy', 'readOnly', 'inconsistent');
    for (const { dirty } of this.bitmaps.values()) dirty.resize(size);
    this.size = size;
  }

  /** Everything that can be seen, in order. */
  list() {
    return [...this.bitmaps].map(([name, bitmap]) => ({
      name,
      granularity: bitmap.dirty.granularity,
      dirtyBytes: bitmap.dirty.dirtyBytes,
      recording: recording(bitmap),
      busy: busy(bitmap),
      persistent: bitmap.persistent,
      inconsistent: bitmap.inconsistent,
      readOnly: bitmap.readOnly,
    }));
  }

  find(name: string, ...refused: ('busy' | 'readOnly' | 'inconsistent')[]): ModelBitmap {
    const bitmap = this.bitmaps.get(name);
    if (bitmap === undefined) throw new Refused('ERR_BITMAP_UNKNOWN');
    if (refused.includes('busy') && busy(bitmap)) throw new Refused('ERR_BITMAP_BUSY');
    if (refused.includes('readOnly') && bitmap.readOnly) throw new Refused('ERR_BITMAP_READONLY');
    if (refused.includes('inconsistent') && bitmap.inconsistent) {
      throw new Refused('ERR_BITMAP_INCONSISTENT');
    }
    return bitmap;
  }
}

function busy({ users, successor }: ModelBitmap): boolean {
  return users > 0 || successor !== null;
}

function recording({ enabled, successor }: ModelBitmap): boolean {
  return successor?.enabled ?? enabled;
}

function copy(bitmap: ModelBitmap): ModelBitmap {
  const { successor } = bitmap;
  return {
    ...bitmap,
    dirty: bitmap.dirty.copy(),
    successor: successor && { ...successor, dirty: successor.dirty.copy() },
  };
}
