import { type AddOptions, Bitmap, type BitmapAction, DirtyBitmaps } from '../../bitmap/index.js';
import type { KeptBitmaps } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { FileBitmaps } from './file-bitmaps.js';
import type { ChangeLog } from './recorder.js';

/** A bitmap that is kept in memory only, with bits of its own. */
export interface MemoryBitmap {
  readonly name: string;
  readonly granularity: number;
  readonly recording: boolean;
  readonly bits: Bitmap;
}

/** The named bitmaps of a node, and how its changes get into them. */
export class NodeBitmaps implements ChangeLog {
  readonly bitmaps: DirtyBitmaps;
  readonly #kept?: KeptBitmaps;

  /** @param kept those that the node's driver keeps; without, they live in memory. */
  constructor(size: number, kept?: KeptBitmaps) {
    this.bitmaps = kept?.bitmaps ?? new DirtyBitmaps({ size });
    if (kept !== undefined) this.#kept = kept;
  }

  /** Whether they are kept in a file beside the disk. */
  get isInFile(): boolean {
    return this.#kept instanceof FileBitmaps;
  }

  /** Whether there is a place where they can be kept. */
  get canKeep(): boolean {
    return this.#kept?.canAdd ?? false;
  }

  /** A mark that is due is waited for; another one may be due then. */
  record(offset: number, length: number): Promise<void> | void {
    if (this.#kept?.mustMark) return this.#markAndRecord(this.#kept, offset, length);
    this.#note(offset, length);
  }

  /** Nothing of it is noted, but for who watches. */
  pass(offset: number, length: number): void {
    for (const watch of this.bitmaps.watches) watch.note(offset, length);
  }

  /** Loads the bits that actions need, and marks durably what they add to. */
  async prepare(actions: readonly BitmapAction[]): Promise<void> {
    const { bitmaps } = this;
    const lasting = actions.find((action) => action.type === 'add' && action.persistent);
    if (lasting !== undefined && !this.#kept?.canAdd) throw nowhere(lasting as AddOptions);
    const added = actions.flatMap((action) =>
      action.type === 'merge' ? [action.target] : action.type === 'reclaim' ? [action.name] : [],
    );
    const read = actions.flatMap((action) => (action.type === 'merge' ? action.sources : []));
    for (const name of [...added, ...read]) {
      if (typeof name === 'string' && bitmaps.has(name)) await bitmaps.load(name);
    }
    await this.#kept?.mark(...added);
  }

  /** Marks what records and is not marked. */
  async markAll(): Promise<void> {
    while (this.#kept?.mustMark) await this.#kept.mark();
  }

  /** Stores what is persistent, while it goes on. */
  async store(): Promise<void> {
    await this.#kept?.store();
  }

  /**
   * Prepares {@link dirtyAll}: what it changes is loaded and marked.
   *
   * @throws LacunaError ERR_BITMAP_READONLY, ERR_BITMAP_BUSY where a bitmap could not be made dirty.
   */
  async prepareDirtyAll(): Promise<void> {
    const { bitmaps } = this;
    const names: string[] = [];
    for (const { name, inconsistent, readOnly, recording, busy } of bitmaps.list()) {
      if (inconsistent) continue;
      if (readOnly || (busy && !recording)) throw cannotDirty(name, readOnly);
      await bitmaps.load(name);
      names.push(name);
    }
    await this.#kept?.mark(...names);
  }

  /** Everything of the node reads as something else from now on. */
  dirtyAll(): void {
    const { bitmaps } = this;
    bitmaps.record(0, bitmaps.size);
    for (const { name, inconsistent, recording, granularity } of bitmaps.list()) {
      if (inconsistent || recording) continue;
      const all = new Bitmap({ size: bitmaps.size, granularity, arena: bitmaps.arena });
      try {
        all.setAll();
        bitmaps.merge(name, [all]);
      } finally {
        all.free();
      }
    }
  }

  /** Those that are kept nowhere else, for {@link restore}. One that lacks writes is of no use to anybody, and goes. */
  inMemory(): MemoryBitmap[] {
    const { bitmaps } = this;
    const lost = bitmaps
      .list()
      .filter(({ persistent, inconsistent }) => !persistent && !inconsistent);
    return lost.map(({ name, granularity, recording }) => {
      return { name, granularity, recording, bits: bitmaps.get(name).snapshot() };
    });
  }

  /** Gets bitmaps of another opening of the disk, which may have become larger, and frees their bits. */
  restore(kept: readonly MemoryBitmap[]): void {
    const { bitmaps } = this;
    for (const { name, granularity, recording, bits } of kept) {
      bitmaps.add({ name, granularity, disabled: true });
      try {
        bits.resize(bitmaps.size);
        bitmaps.merge(name, [bits]);
        if (recording) bitmaps.enable(name);
      } finally {
        bits.free();
      }
    }
  }

  /** Frees those that are kept in memory only; what a driver keeps, it frees. */
  freeOwn(): void {
    if (this.#kept === undefined) this.bitmaps.free();
  }

  /** @param wasClosed the disk has been closed, and nothing of it was lost. */
  async close(wasClosed: boolean): Promise<void> {
    const kept = this.#kept;
    this.freeOwn();
    if (kept instanceof FileBitmaps) await (wasClosed ? kept.close() : kept.giveUp());
  }

  async #markAndRecord(kept: KeptBitmaps, offset: number, length: number): Promise<void> {
    while (kept.mustMark) await kept.mark();
    this.#note(offset, length);
  }

  /** The guest goes on where there is no memory for its bitmaps: those lack the write, and say so. */
  #note(offset: number, length: number): void {
    try {
      this.bitmaps.record(offset, length);
    } catch (error) {
      if (!(error instanceof LacunaError) || error.code !== 'ERR_ARENA_FULL') throw error;
      this.bitmaps.loseRecording();
    }
  }
}

function nowhere({ name }: AddOptions): LacunaError {
  const message = `there is no place to keep bitmap '${name}' in: add it without persistent, or to an image that is open for writing, or open its raw disk with a bitmapFile`;
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', message);
}

function cannotDirty(name: string, readOnly: boolean): LacunaError {
  const why = readOnly ? 'it is read-only' : 'somebody uses it';
  const message = `what the disk shows would change, and bitmap '${name}' cannot be made dirty: ${why}; end that use, or remove the bitmap, first`;
  return new LacunaError(readOnly ? 'ERR_BITMAP_READONLY' : 'ERR_BITMAP_BUSY', message);
}
