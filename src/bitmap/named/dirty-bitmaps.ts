import { optionCheck } from '../../util/index.js';
import { Arena } from '../../wasm/index.js';
import { Bitmap, checkBytes, checkRange, granularityShift } from '../bits/index.js';
import type { AddOptions, BitmapAction, BitmapsOfDevice, MergeSource } from './actions.js';
import { checkAddOptions } from './actions.js';
import { type BitmapStore, type CommandState, Commands, findEntry, lookAt } from './commands.js';
import type { StoredBitmap } from './content.js';
import { DirtyBitmap, type DirtyBitmapInfo } from './dirty-bitmap.js';
import { type BitmapUser, type Entry, Undo } from './entry.js';
import { Journal } from './journal.js';
import { CHANGES, readOnly, refuse, USES } from './rules.js';
import { WriteWatch } from './watch.js';

/** The device whose bitmaps are kept. */
export interface DirtyBitmapsOptions {
  /** Bytes of the device, 0 to 2^53 - 1. */
  size: number;
  /** Bytes of a cluster of the device's format, a power of two; what one write may touch at least. */
  clusterSize?: number;
  /**
   * For bitmaps that are added without one: a power of two from 512 to 2^31. Default the cluster
   * size, but at least 4 KiB and at most 64 KiB; 64 KiB when that is unknown.
   */
  granularity?: number;
  /** Where the bits live; default the arena of this thread. */
  arena?: Arena;
}

const checkDirtyBitmapsOptions = optionCheck<DirtyBitmapsOptions>({
  size: { needed: 'bytes of the disk' },
  clusterSize: 'any',
  granularity: 'any',
  arena: 'any',
});

/** Somebody's hold on a bitmap. */
export interface BitmapUse extends Disposable, BitmapUser {
  /** What is held. */
  readonly bitmap: DirtyBitmap;
  /** Ends the use; a second time does nothing. */
  release(): void;
}

/**
 * The named dirty bitmaps of one device. The device's write path calls {@link record}, whose cost
 * does not depend on how many bitmaps record; each bitmap gets what was recorded while it was
 * enabled when somebody looks at it. Commands refuse what QEMU's refuse, and change nothing when
 * they fail. To be used by one thread.
 */
export class DirtyBitmaps implements BitmapsOfDevice, Disposable {
  readonly #state: CommandState;
  readonly #journal: Journal;
  readonly #entries = new Map<string, Entry>();
  readonly #views = new WeakMap<Entry, DirtyBitmap>();
  /** @internal See {@link watch}. */
  readonly watches = new Set<WriteWatch>();
  /** Whether the next write must first be refused by a read-only bitmap, or told to the store. */
  #gated = false;

  /** @throws TypeError or RangeError when an option is out of its range. */
  constructor(options: DirtyBitmapsOptions) {
    checkDirtyBitmapsOptions('DirtyBitmaps', options);
    const { size, clusterSize = 65536, arena = Arena.default } = options;
    checkBytes('size', size);
    if (!(Number.isSafeInteger(clusterSize) && clusterSize > 0)) {
      throw new RangeError(`clusterSize must be a power of two, not ${clusterSize}`);
    }
    const { granularity = Math.min(65536, Math.max(4096, clusterSize)) } = options;
    granularityShift(granularity);
    this.#journal = new Journal(size, arena);
    const parts = { entries: this.#entries, journal: this.#journal, arena };
    this.#state = { ...parts, granularity, size, store: null };
  }

  /** Bytes of the device. */
  get size(): number {
    return this.#state.size;
  }

  /** Where the bits live. */
  get arena(): Arena {
    return this.#state.arena;
  }

  /** Of bitmaps that are added without one, in bytes. */
  get granularity(): number {
    return this.#state.granularity;
  }

  /** Where persistent bitmaps are kept while they record; null for nowhere. */
  get store(): BitmapStore | null {
    return this.#state.store;
  }

  set store(store: BitmapStore | null) {
    this.#state.store = store;
    for (const entry of this.#entries.values()) entry.told = false;
    this.#update();
  }

  /**
   * Notes that a range is being written. To be called before the write, so that no write is missed.
   *
   * @throws RangeError when the range reaches behind the size.
   * @throws LacunaError ERR_BITMAP_READONLY when a read-only bitmap records; ERR_ARENA_FULL; what the {@link store}
   * throws. Nothing has been recorded then, and the write must not be made.
   */
  record(offset: number, length: number): void {
    const { active } = this.#journal;
    if (active === null) {
      this.#checkInside(offset, length);
      return;
    }
    if (this.#gated) this.#passGate();
    active.set(offset, length);
  }

  /**
   * {@link record} for many ranges: offset, length, offset, length, ... All or none.
   */
  recordMany(pairs: Float64Array | readonly number[]): void {
    const { active } = this.#journal;
    if (active === null) {
      for (let i = 0; i < pairs.length; i += 2) this.#checkInside(pairs[i], pairs[i + 1]);
      return;
    }
    if (this.#gated) this.#passGate();
    active.setRanges(pairs);
  }

  /** Number of bitmaps. */
  get count(): number {
    return this.#entries.size;
  }

  /** Whether the device has a bitmap of this name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * A look at a bitmap.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN
   */
  get(name: string): DirtyBitmap {
    return this.#view(findEntry(this.#state, name));
  }

  /** All bitmaps in the order in which they were added. */
  [Symbol.iterator](): IterableIterator<DirtyBitmap> {
    return [...this.#entries.values()].map((entry) => this.#view(entry)).values();
  }

  /** States and numbers of all bitmaps; loads nothing. */
  list(): DirtyBitmapInfo[] {
    this.#catchUp();
    return [...this].map(({ info }) => info);
  }

  /**
   * Adds a clean bitmap, which records from now on unless `disabled`.
   *
   * @throws TypeError or RangeError when an option is out of its range.
   * @throws LacunaError ERR_BITMAP_EXISTS, ERR_ARENA_FULL
   */
  add(options: AddOptions): DirtyBitmap {
    checkAddOptions('add', options);
    return this.#view(this.#run((commands) => commands.add(options)));
  }

  /**
   * Removes a bitmap; all that an inconsistent one can be used for. A persistent one must not be
   * read-only, because its store would keep it.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_READONLY
   */
  remove(name: string): void {
    this.#run((commands) => commands.remove(name));
  }

  /**
   * Makes everything clean, without loading what is stored. Recording goes on.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_READONLY,
   * ERR_BITMAP_INCONSISTENT, ERR_ARENA_FULL
   */
  clear(name: string): void {
    this.#run((commands) => commands.clear(name));
  }

  /**
   * Records writes from now on.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT,
   * ERR_ARENA_FULL, and what the {@link store} throws.
   */
  enable(name: string): void {
    this.#run((commands) => commands.enable(name));
  }

  /**
   * Records no further writes.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT,
   * ERR_ARENA_FULL
   */
  disable(name: string): void {
    this.#run((commands) => commands.disable(name));
  }

  /**
   * Adds to a bitmap what is dirty in any of the sources, rounded outward to its granules. All or
   * none; the sources are unchanged.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY (target or a source),
   * ERR_BITMAP_INCONSISTENT (likewise), ERR_BITMAP_READONLY (target), ERR_BITMAP_MISMATCH when sizes
   * differ, ERR_BITMAP_UNLOADED, ERR_ARENA_FULL, and what the {@link store} throws.
   */
  merge(target: string, sources: readonly MergeSource[]): void {
    this.#run((commands) => commands.merge(target, sources));
  }

  /**
   * Does all actions in order, as one: no write is recorded between them, and when one fails, those
   * before it are undone, bit for bit, and its error is thrown. A name that is removed may be added
   * again in the same transaction, which QEMU refuses. `freeze` is {@link createSuccessor}; `abdicate` and `reclaim` end that,
   * and `drop` removes a bitmap together with its successor.
   */
  transaction(actions: readonly BitmapAction[]): void {
    this.#run((commands) => {
      for (const action of actions) commands.perform(action);
    });
  }

  /**
   * @internal A transaction of which it is decided later whether it stays; until then nothing is recorded and no other command
   * given. Calls of `commit` and `undo` behind the first one do nothing.
   */
  begin(actions: readonly BitmapAction[]): { commit(): void; undo(): void } {
    const undo = new Undo(this.#entries);
    const commands = new Commands(this.#state, undo);
    let isDecided = false;
    const decide = (end: () => void) => () => {
      if (isDecided) return;
      isDecided = true;
      end();
      this.#update();
    };
    const back = decide(() => undo.rollback());
    try {
      for (const action of actions) commands.perform(action);
    } catch (error) {
      back();
      throw error;
    }
    this.#update();
    return { commit: decide(() => undo.free()), undo: back };
  }

  /**
   * Freezes a bitmap and lets a successor, which begins clean, record in its place, until
   * {@link abdicate} or {@link reclaim}. So a backup can read what is dirty while writes go on,
   * and lose none of them whether it succeeds or fails.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT,
   * ERR_ARENA_FULL
   */
  createSuccessor(name: string): void {
    this.#run((commands) => commands.freeze(name));
  }

  /**
   * Puts the successor in the place of the bitmap: what was dirty before is forgotten.
   *
   * @throws TypeError when there is no successor.
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_READONLY
   */
  abdicate(name: string): void {
    this.#run((commands) => commands.abdicate(name));
  }

  /**
   * Puts the bitmap in its place again, with what was dirty before and what the successor recorded.
   *
   * @throws TypeError when there is no successor.
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_ARENA_FULL; the successor stays then.
   */
  reclaim(name: string): void {
    this.#run((commands) => commands.reclaim(name));
  }

  /**
   * Keeps a bitmap from being removed, and from being changed except by recording, until every use of it is released. Errors
   * that others get meanwhile name the `user`. A user that changes the bitmap says `changes`, and must be the only one.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY when it has a successor,
   * ERR_BITMAP_INCONSISTENT; with `changes` also ERR_BITMAP_BUSY when others use it, ERR_BITMAP_READONLY.
   */
  acquire(name: string, user: string, { changes = false } = {}): BitmapUse {
    const entry = findEntry(this.#state, name);
    if (changes) refuse(entry, CHANGES, 'change');
    else refuse(entry, { ...USES, busy: entry.successor !== null }, 'use');
    const release = (): void => {
      entry.users.delete(use);
    };
    const bitmap = this.#view(entry);
    const use: BitmapUse = { user, bitmap, release, [Symbol.dispose]: release };
    entry.users.add(use);
    return use;
  }

  /**
   * Adds bitmaps that are stored somewhere, all or none. Their bits are read when somebody asks for
   * them; until then they can record, be cleared and be merged into without them. The {@link store}
   * is not told.
   *
   * @throws RangeError when a name or granularity is out of range.
   * @throws LacunaError ERR_BITMAP_EXISTS, ERR_ARENA_FULL
   */
  register(...stored: readonly StoredBitmap[]): void {
    this.registerIf(stored, () => {});
  }

  /** @internal As {@link register}; what `confirm` throws undoes it. */
  registerIf(stored: readonly StoredBitmap[], confirm: () => void): void {
    this.#run((commands) => {
      for (const each of stored) commands.register(each);
      confirm();
    });
  }

  /** Reads the bits of a stored bitmap, if that was not done yet. */
  async load(name: string): Promise<DirtyBitmap> {
    const entry = findEntry(this.#state, name);
    if (!entry.inconsistent) await entry.content.load();
    return this.#view(entry);
  }

  /** What is stored of a bitmap, if nobody has loaded, changed or recorded anything since. */
  untouched(name: string): StoredBitmap | null {
    const { content, successor } = findEntry(this.#state, name);
    return successor === null ? content.untouched : null;
  }

  /** What is stored of a bitmap, if that is all there is to it, whether or not it records: see {@link untouched}. */
  unchanged(name: string): StoredBitmap | null {
    const { content, successor } = findEntry(this.#state, name);
    return successor === null ? content.unchanged : null;
  }

  /** @internal Records what is written from now on, apart from the bitmaps of the device, until the watch is freed. */
  watch(granularity: number): WriteWatch {
    const { size, arena } = this.#state;
    const bits = new Bitmap({ size, granularity, arena });
    const watch = new WriteWatch(this.#journal, bits, () => void this.watches.delete(watch));
    this.watches.add(watch);
    return watch;
  }

  /** @internal A write is made that nothing could record: what records has missed it from now on. */
  loseRecording(): void {
    for (const entry of this.#recording) entry.lose();
    for (const watch of this.watches) watch.lose();
    this.#update();
  }

  /** Says whether the store of a bitmap can be written. A write while it records is an error then. */
  setReadOnly(name: string, value: boolean): void {
    findEntry(this.#state, name).readOnly = value;
    this.#update();
  }

  /**
   * Gives the device another size, and all bitmaps with it; new granules are clean. Stored bits are
   * loaded for it. All or none.
   *
   * @throws RangeError when `size` is no size.
   * @throws LacunaError ERR_BITMAP_BUSY, ERR_BITMAP_READONLY, ERR_BITMAP_INCONSISTENT,
   * ERR_BITMAP_UNLOADED, ERR_ARENA_FULL
   */
  resize(size: number): void {
    checkBytes('size', size);
    const entries = [...this.#entries.values()];
    for (const entry of entries) refuse(entry, CHANGES, 'resize');
    this.#catchUp();
    const resized: Bitmap[] = [];
    try {
      for (const { content } of entries) resized.push(content.resized(size));
      this.#journal.resize(size);
    } catch (error) {
      for (const bits of resized) bits.free();
      throw error;
    }
    for (const [i, { content }] of entries.entries()) content.replace(resized[i]);
    this.#state.size = size;
  }

  /** Removes all bitmaps without asking and gives back their memory. */
  free(): void {
    for (const entry of this.#entries.values()) entry.free();
    this.#entries.clear();
    this.#gated = false;
  }

  [Symbol.dispose](): void {
    this.free();
  }

  /** @internal Of those that record, themselves or by their successor. */
  get recordingNames(): string[] {
    return this.#recording.map(({ name }) => name);
  }

  /** @internal The bits of a bitmap that another device merges from. */
  look(name: string): Bitmap {
    return lookAt(this.#state, name);
  }

  /** @internal A snapshot that holds what a successor recorded too; the caller frees it. */
  union(name: string): Bitmap {
    const { content, successor } = findEntry(this.#state, name);
    const copy = content.look().snapshot();
    try {
      if (successor !== null) copy.merge(successor.look());
      return copy;
    } catch (error) {
      copy.free();
      throw error;
    }
  }

  #run<T>(work: (commands: Commands) => T): T {
    const undo = new Undo(this.#entries);
    try {
      const result = work(new Commands(this.#state, undo));
      undo.free();
      return result;
    } catch (error) {
      undo.rollback();
      throw error;
    } finally {
      this.#update();
    }
  }

  #view(entry: Entry): DirtyBitmap {
    let view = this.#views.get(entry);
    if (view === undefined) {
      view = new DirtyBitmap(entry);
      this.#views.set(entry, view);
    }
    return view;
  }

  /** Brings all bitmaps up to date, in the order in which the journal joins what it holds. */
  #catchUp(): void {
    const contents = [...this.#entries.values()].flatMap(({ content, successor }) =>
      successor === null ? [content] : [content, successor],
    );
    contents.sort((a, b) => b.sequence - a.sequence);
    for (const content of contents) content.catchUp();
  }

  #update(): void {
    this.#gated = this.#recording.some((entry) => entry.readOnly || this.#mustTell(entry));
  }

  get #recording(): Entry[] {
    return [...this.#entries.values()].filter(({ recording }) => recording);
  }

  #mustTell({ persistent, told }: Entry): boolean {
    return persistent && !told && this.#state.store !== null;
  }

  /** Refuses a write, or tells the store of the first one: what is stored lacks it from now on. */
  #passGate(): void {
    const recording = this.#recording;
    const locked = recording.find((entry) => entry.readOnly);
    if (locked !== undefined) throw readOnly(locked.name, 'record a write into');
    for (const entry of recording.filter((each) => this.#mustTell(each))) {
      this.#state.store?.beforeAdding(entry.name, 'record');
      entry.told = true;
    }
    this.#gated = false;
  }

  #checkInside(offset: number, length: number): void {
    checkRange(offset, length);
    if (offset + length <= this.size) return;
    throw new RangeError(
      `offset ${offset} and length ${length} reach behind the device's ${this.size} bytes`,
    );
  }
}
