import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import {
  type FileOperations,
  fileOperations,
  followed,
  Replacement,
  sweep,
} from '../../files/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import { Arena } from '../../wasm/index.js';
import { type Bitmap, checkBytes } from '../bits/index.js';
import {
  type BitmapStore,
  type DirtyBitmaps,
  exists,
  type StoredBitmap,
  unknown,
} from '../named/index.js';
import { corrupt, fileFailure, openExisting } from './file-failures.js';
import { bytesOf, decodeHead, type Head, MARKED, PREFIX_BYTES, readPrefix } from './file-header.js';
import { readFully, Section } from './file-section.js';
import {
  freeNewSections,
  Gathered,
  isMarked,
  type NewSection,
  newSectionsOf,
  type WriteOptions,
  writeSections,
} from './file-writer.js';

/** Whose bitmaps a file keeps, and how it is opened. */
export interface BitmapFileOptions {
  /**
   * Bytes of the disk whose bitmaps these are; those of another size are refused. Whoever only looks may leave it out: then
   * the file must be there.
   */
  size?: number;
  /** What else tells the disk from others, such as a UUID; a file without the same is refused. */
  identity?: string;
  /** Open only to look: bitmaps cannot be changed, and nothing is marked. Default false. */
  readOnly?: boolean;
  /** Where bits are loaded to; default the arena of this thread. */
  arena?: Arena;
  /** @internal For tests that cut the power. */
  operations?: FileOperations;
}

const checkFileOptions = optionCheck<BitmapFileOptions>({
  size: 'any',
  identity: 'any',
  readOnly: 'flag',
  arena: 'any',
  operations: 'any',
});

/**
 * A file that keeps the persistent bitmaps of a disk whose format has no place for them.
 *
 *     const file = BitmapFile.open('disk.bitmaps', { size });
 *     file.restore(bitmaps);        // what records now is marked in the file, durably
 *     ... bitmaps.record(...) ...
 *     file.close(bitmaps);          // stores everything; the marks are gone
 *
 * The file is replaced as a whole: written beside itself, synced, renamed, and the folder synced; so
 * after a crash it is the old one or the new one. A bitmap is marked before it begins to record or
 * anything is merged into it, and found inconsistent if the file was not stored or closed after
 * that: its bits lack something. Only one process may have the file open for recording.
 *
 * All calls are synchronous: what is stored is one moment of the bitmaps, and nothing can begin to
 * record between that and the rename. They wait for the disk, so call them where that may be.
 */
export class BitmapFile implements BitmapStore {
  /** Where the file is. */
  readonly path: string;
  /** What could not be kept of a file that was replaced, such as its owner. */
  readonly warnings: string[] = [];
  readonly #options: BitmapFileOptions;
  readonly #operations: FileOperations;
  #size: number;
  #identity: string;
  #sections: Section[] = [];
  #marked = new Set<string>();
  #fd: number | undefined;
  #marksAt = 0;
  /** Whether it is sure that the open file is what a crash leaves under its name. */
  #named = true;
  #closed = false;
  /** Whether what others have left of this file was looked for. */
  #swept = false;

  /**
   * Opens the file at `path`; one that is not there holds no bitmaps, and is made when some are
   * stored. What it holds is known then, but no bits have been read.
   *
   * @throws LacunaError ERR_BITMAP_CORRUPT; ERR_BITMAP_MISMATCH when it belongs to another disk;
   * ERR_BITMAP_FILE.
   */
  static open(path: string, options: BitmapFileOptions): BitmapFile {
    checkGiven('BitmapFile.open', 'path', path, 'of the file of bitmaps');
    checkFileOptions('BitmapFile.open', options);
    return new BitmapFile(path, options);
  }

  private constructor(path: string, options: BitmapFileOptions) {
    const { size, readOnly = false } = options ?? {};
    if (size !== undefined || !readOnly) checkBytes('size', size as number);
    this.path = path;
    this.#size = size ?? 0;
    this.#options = options;
    this.#operations = options.operations ?? fileOperations;
    this.#identity = options.identity ?? '';
    checkIdentity(this.#identity);
    this.#fd = openExisting(path, readOnly);
    if (this.#fd === undefined && size === undefined) throw missing(path);
    if (this.#fd === undefined) return;
    try {
      this.#read(this.#fd);
    } catch (error) {
      fs.closeSync(this.#fd);
      throw error;
    }
  }

  /** The bitmaps in the file, for DirtyBitmaps.register. */
  get bitmaps(): readonly StoredBitmap[] {
    return this.#sections;
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#size;
  }

  /** What the file says of its disk beside the size. */
  get identity(): string {
    return this.#identity;
  }

  /**
   * Reads the bits of one bitmap; the caller owns them.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_CORRUPT, ERR_BITMAP_FILE, ERR_ARENA_FULL
   */
  load(name: string): Bitmap {
    const section = this.#sections.find((each) => each.name === name);
    if (section === undefined)
      throw unknown(
        name,
        this.#sections.map((each) => each.name),
      );
    return section.load();
  }

  /**
   * Registers all bitmaps of the file, whose bits are loaded when somebody asks for them. Those that
   * record from now on are marked durably first, as is every other one before it begins to.
   *
   * @throws LacunaError ERR_BITMAP_EXISTS, ERR_BITMAP_MISMATCH when the sizes differ,
   * ERR_BITMAP_FILE, ERR_ARENA_FULL
   */
  restore(bitmaps: DirtyBitmaps): void {
    this.#checkSize(bitmaps.size);
    const clash = this.#sections.find(({ name }) => bitmaps.has(name));
    if (clash !== undefined) throw exists(clash.name);
    if (this.#options.readOnly) {
      bitmaps.register(...this.#sections);
      return;
    }
    const recording = this.#sections.filter((each) => each.recording).map(({ name }) => name);
    bitmaps.registerIf(this.#sections, () => this.#mark(recording));
    bitmaps.store = this;
  }

  /** @internal As {@link restore}, where the disk was changed by others: all bitmaps lack that. */
  restoreInconsistent(bitmaps: DirtyBitmaps): void {
    this.#checkSize(bitmaps.size);
    const { readOnly = false } = this.#options;
    bitmaps.register(
      ...this.#sections.map(({ name, granularity }) => ({
        ...{ name, granularity, readOnly, recording: false, inconsistent: true, dirtyBytes: 0 },
        load: () => this.load(name),
      })),
    );
    if (!readOnly) bitmaps.store = this;
  }

  /** Marks a bitmap, if the file has one of that name, before it begins to record. */
  beforeRecording(name: string): void {
    this.#mark([name]);
  }

  /** Marks a bitmap, if the file has one of that name, before dirt is added to it. */
  beforeAdding(name: string): void {
    this.#mark([name]);
  }

  /**
   * Replaces the file by the persistent bitmaps as they are now, while they go on. Those that record
   * stay marked, so a crash makes them inconsistent, but keeps all others.
   *
   * @throws LacunaError ERR_BITMAP_FILE; ERR_BITMAP_CORRUPT when a bitmap that nobody has loaded yet
   * is damaged. The file is the old one then.
   */
  store(bitmaps: DirtyBitmaps): void {
    this.#replace(bitmaps, true);
    bitmaps.store = this;
  }

  /**
   * Ends the use of the file. With `bitmaps`, they are stored first and no longer marked; they are
   * read-only afterwards, so that no write is recorded that would not be stored. Without, what
   * recorded or was merged into since it was opened stays marked.
   *
   * @param identity what else tells the disk from others from now on, where that changes with it.
   * @throws as {@link store}; the file is still open then.
   */
  close(bitmaps?: DirtyBitmaps, identity?: string): void {
    if (this.#closed) return;
    if (bitmaps !== undefined) {
      if (identity !== undefined) checkIdentity(identity);
      this.#replace(bitmaps, false, identity);
      for (const { name, persistent } of bitmaps.list()) {
        if (persistent) bitmaps.setReadOnly(name, true);
      }
      bitmaps.store = null;
    }
    this.#closed = true;
    for (const section of this.#sections) section.place = null;
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
  }

  #read(fd: number): void {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw noFile(this.path, stat);
    if (stat.size < PREFIX_BYTES) throw corrupt(this.path, `it has only ${stat.size} bytes`);
    const length = readPrefix(this.#bytes(fd, 0, PREFIX_BYTES), this.path);
    if (length > stat.size) throw corrupt(this.path, 'it ends within its head');
    const head = decodeHead(this.#bytes(fd, 0, length), this.path);
    this.#checkIdentity(head);
    if (this.#options.size !== undefined) this.#checkSize(head.size);
    const { bitmaps } = head;
    const bits = bitmaps.reduce((sum, { sectionBytes }) => sum + sectionBytes, 0);
    const expected = length + bitmaps.length + bits;
    if (stat.size !== expected) {
      throw corrupt(this.path, `it has ${stat.size} bytes, but should have ${expected}`);
    }
    const marks = this.#bytes(fd, length, bitmaps.length);
    if (marks.some((mark) => mark !== 0 && mark !== MARKED)) {
      throw corrupt(this.path, 'a mark has changed');
    }
    const marked = bitmaps.filter((_, i) => marks[i] === MARKED).map(({ name }) => name);
    this.#adopt(fd, head, { marked, inconsistent: marked, copied: [] });
  }

  /** Writes the file anew beside itself, and puts it in its place. */
  #replace(bitmaps: DirtyBitmaps, open: boolean, identity = this.#identity): void {
    const previous = this.#writable();
    const operations = this.#operations;
    const sections = newSectionsOf(bitmaps);
    let fresh: Replacement | undefined;
    try {
      this.#refuseAnother(previous);
      if (!this.#swept) sweep(this.path);
      this.#swept = true;
      fresh = Replacement.create(this.path, { operations });
      const disk = { size: bitmaps.size, identity };
      const head = writeFile(operations, fresh.fd, sections, { ...disk, open });
      this.warnings.push(...fresh.finish());
      this.#adopt(fresh.fd, head, namesIn(sections, open));
      if (previous !== undefined) fs.closeSync(previous);
      this.#name();
    } catch (error) {
      fresh?.removeUnfinished();
      throw fileFailure('store', this.path, error);
    } finally {
      freeNewSections(sections);
    }
  }

  /** What was opened is replaced, and nothing that has come in its place. */
  #refuseAnother(previous: number | undefined): void {
    const named = fs.statSync(this.path, { bigint: true, throwIfNoEntry: false });
    const opened = previous === undefined ? undefined : fs.fstatSync(previous, { bigint: true });
    if (named?.ino === opened?.ino && named?.dev === opened?.dev) return;
    const message = `the file of bitmaps ${this.path} was made, replaced or removed by somebody else since it was opened, and was left alone: open it again`;
    throw new LacunaError('ERR_FILE_CHANGED', message, { device: this.path });
  }

  #name(): void {
    this.#named = false;
    this.#operations.syncFolder(followed(this.path));
    this.#named = true;
  }

  /** The open file, if there is one yet. */
  #writable(): number | undefined {
    if (this.#closed) throw closed(this.path);
    if (this.#options.readOnly) throw readOnlyFile(this.path);
    return this.#fd;
  }

  #bytes(fd: number, position: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readFully(fd, this.path, bytes, position);
    return bytes;
  }

  #checkIdentity({ identity }: Head): void {
    const { identity: wanted } = this.#options;
    if (wanted !== undefined && wanted !== identity) {
      throw new LacunaError(
        'ERR_BITMAP_MISMATCH',
        `the file of bitmaps ${this.path} belongs to disk '${identity}', not to '${wanted}': ` +
          'find the one of this disk, or make a full copy',
        { device: this.path },
      );
    }
    this.#identity = identity;
  }

  #checkSize(size: number): void {
    if (size === this.#size) return;
    throw new LacunaError(
      'ERR_BITMAP_MISMATCH',
      `the file of bitmaps ${this.path} and its disk differ: ${size} bytes instead of ` +
        `${this.#size}. Find the one of this disk, or make a full copy`,
      { device: this.path },
    );
  }

  /** Takes a file whose head is known as the one that is open. */
  #adopt(fd: number, head: Head, { marked, inconsistent, copied }: NamesIn): void {
    const { arena = Arena.default, readOnly = false } = this.#options;
    this.#marksAt = bytesOf(head);
    let position = this.#marksAt + head.bitmaps.length;
    this.#sections = head.bitmaps.map((entry, i) => {
      const place = { fd, path: this.path, position };
      position += entry.sectionBytes;
      const states = { inconsistent: inconsistent.includes(entry.name), readOnly };
      const section = copied[i] ?? new Section(entry, { size: head.size, arena, place, ...states });
      section.place = place;
      return section;
    });
    this.#marked = new Set(marked);
    this.#size = head.size;
    this.#fd = fd;
  }

  /** Says in the file that these will lack writes. What it does not hold lacks nothing. */
  #mark(names: readonly string[]): void {
    const operations = this.#operations;
    const missing = names.filter((name) => !this.#marked.has(name));
    const indices = missing.map((name) => this.#sections.findIndex((each) => each.name === name));
    const found = indices.filter((index) => index >= 0);
    if (found.length === 0) return;
    const fd = this.#writable()!;
    try {
      if (!this.#named) this.#name();
      for (const index of found) {
        operations.write(fd, Uint8Array.of(MARKED), this.#marksAt + index);
      }
      operations.sync(fd);
    } catch (error) {
      throw fileFailure('mark what records in', this.path, error);
    }
    for (const index of found) this.#marked.add(this.#sections[index].name);
  }
}

/** What is special about some bitmaps of a file. */
interface NamesIn {
  readonly marked: readonly string[];
  readonly inconsistent: readonly string[];
  /** Sections that were copied as they are, by their place in the file. */
  readonly copied: readonly (Section | undefined)[];
}

function namesIn(sections: readonly NewSection[], open: boolean): NamesIn {
  const names = (found: readonly NewSection[]): string[] => found.map(({ name }) => name);
  return {
    marked: names(sections.filter((section) => isMarked(section, open))),
    inconsistent: names(sections.filter((section) => section.inconsistent)),
    copied: sections.map(({ from }) => (from instanceof Section ? from : undefined)),
  };
}

function writeFile(
  operations: FileOperations,
  fd: number,
  sections: readonly NewSection[],
  options: WriteOptions,
): Head {
  const gathered = new Gathered(operations, fd);
  const head = writeSections((bytes, at) => gathered.write(bytes, at), sections, options);
  gathered.flush();
  operations.sync(fd);
  return head;
}

function checkIdentity(identity: string): void {
  const bytes = Buffer.byteLength(identity);
  if (bytes > 4096) throw new RangeError(`identity may have 4096 bytes, not ${bytes}`);
}

function closed(path: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_FILE',
    `the file of bitmaps ${path} has been closed: open it again`,
    { device: path },
  );
}

function readOnlyFile(path: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_READONLY',
    `the file of bitmaps ${path} was opened read-only: open it for writing to store bitmaps`,
    { device: path },
  );
}

function missing(path: string): LacunaError {
  const message = `there is no file of bitmaps ${path}: check the path`;
  return new LacunaError('ERR_BITMAP_FILE', message, { device: path, errno: 'ENOENT' });
}

/** A folder or a device must never be advised to be removed. */
function noFile(path: string, stat: fs.Stats): unknown {
  if (stat.isDirectory()) return fileFailure('open', path, { code: 'EISDIR' });
  const message = `${path} is not a regular file, and so not a file of bitmaps: name another`;
  return new LacunaError('ERR_BITMAP_CORRUPT', message, { device: path });
}
