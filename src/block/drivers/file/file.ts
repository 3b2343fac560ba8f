import fs from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { LacunaError } from '../../../errors/index.js';
import { Context, ExtentList, Status } from '../../../extent/index.js';
import { type FileRequest, fileError, shortError } from '../../../files/index.js';
import type {
  Capabilities,
  ChangeableLock,
  CopyRange,
  Driver,
  Limits,
  LockAccess,
  WriteOptions,
  ZeroOptions,
} from '../../contract/index.js';
import type { FileDescription } from './description.js';
import { errnoName, type SystemCalls, systemCalls } from './ffi.js';
import { walkExtents } from './file-extents.js';
import { type FileKind, inspect } from './file-kind.js';
import { lockImage, unlockImage } from './image-locks.js';

/** Kinds of "not here": the next way to do the same thing is tried, and this one never again. */
const UNSUPPORTED = new Set(['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'ENODEV']);

/** The kernel cannot copy between these two files, whatever the range. */
const NO_COPY = new Set([...UNSUPPORTED, 'EXDEV', 'EPERM', 'ETXTBSY', 'EBADF']);

/** The later keeps others from more. */
const RANKS: readonly LockAccess[] = ['none', 'read', 'write'];

const fdatasync = promisify(fs.fdatasync);
const closeFile = promisify(fs.close);

/**
 * A raw disk in a regular file or a block device.
 *
 * Bytes move by synchronous calls: from the page cache they take less time than a trip through the thread
 * pool, and a worker has nothing else to do meanwhile. What waits for the medium (flush) does not block.
 */
export class FileDriver implements Driver {
  readonly name: string;
  description: FileDescription;
  readonly path: string;
  size: number;
  readonly limits: Limits;
  capabilities: Capabilities;
  /** Set where a file is opened by its name alone. */
  warnings: readonly string[] = [];
  #fd: number;
  /** Opened first, for reading only: its locks stand for both. */
  #lockedFd?: number;
  readonly #locking: FileDescription['locking'];
  #access: LockAccess;
  /** Bytes of the file when it was no longer locked. */
  #sizeLeft = 0;
  readonly #kind: FileKind;
  readonly #calls?: SystemCalls;
  #seeks = true;
  #punches = true;
  #zeroes = true;
  /** Sources from which the kernel has refused to copy. */
  readonly #apart = new WeakSet<FileDriver>();

  private constructor(
    description: FileDescription,
    { fd, locking }: { fd: number; locking: FileDescription['locking'] },
    kind: FileKind,
    calls?: SystemCalls,
  ) {
    const write = description['read-only'] !== true;
    this.name = description.filename;
    this.description = description;
    this.path = description.filename;
    this.size = kind.size;
    this.limits = kind.limits;
    this.#fd = fd;
    this.#locking = locking;
    this.#access = write ? 'write' : 'read';
    this.#kind = kind;
    this.#calls = calls;
    this.capabilities = {
      write,
      zero: calls !== undefined || !kind.isBlock,
      fastZero: calls !== undefined,
      discard: calls !== undefined,
      flush: write,
      contexts: kind.isBlock ? [] : [Context.allocation],
      exactStatus: calls !== undefined && !kind.isBlock,
      multiConnection: true,
      knownZero: false,
    };
  }

  /**
   * @throws LacunaError ERR_DEVICE_OPEN where the path cannot be opened as a disk, ERR_DEVICE_LOCKED where others
   * use it in a way that does not go with this one.
   */
  static async open(description: FileDescription): Promise<FileDriver> {
    const filename = resolve(description.filename);
    const { 'read-only': readOnly = false, 'force-share': shared = false, locking } = description;
    const calls = systemCalls();
    const { fd, kind } = inspect(filename, { readOnly, alone: locking !== 'off' });
    try {
      checkInode(filename, kind, description.inode);
      const access = readOnly ? (shared ? 'share' : 'read') : 'write';
      await lockImage({ fd, filename, access, locking, calls });
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
    const { inode } = kind;
    const opened = { ...description, filename, locking: 'off', inode } as const;
    return new FileDriver(opened, { fd, locking }, kind, calls);
  }

  /** Absent where it is not locked, or is read although others write it. */
  get lock(): ChangeableLock | undefined {
    if (this.#locking === 'off' || this.description['force-share']) return undefined;
    return { access: this.#access, change: (access) => this.#lockAs(access) };
  }

  /** Whether writes behind its end make it longer. */
  get grows(): boolean {
    return !this.#kind.isBlock;
  }

  /**
   * Opens a file that is open for reading for writing too, or ends that. Its locks change with it, and are never given up in
   * between.
   *
   * @throws LacunaError ERR_DEVICE_OPEN, ERR_DEVICE_LOCKED; it is as it was then.
   */
  async setWritable(writable: boolean): Promise<void> {
    if (writable === this.capabilities.write) return;
    if (writable) await this.#openForWriting();
    else await this.#endWriting();
    this.description = { ...this.description, 'read-only': !writable };
    this.capabilities = { ...this.capabilities, write: writable, flush: writable };
  }

  async #openForWriting(): Promise<void> {
    const { filename, inode, 'force-share': shared = false } = this.description;
    if (shared) {
      const message = `${filename} is read although others write it (force-share): open it without that to write it`;
      throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename });
    }
    const before = this.#access;
    try {
      await this.#lockAs('write');
      const alone = this.#locking !== 'off';
      const { fd, kind } = inspect(filename, { readOnly: false, alone });
      this.#lockedFd = this.#fd;
      this.#fd = fd;
      checkInode(filename, kind, inode);
    } catch (error) {
      if (this.#lockedFd !== undefined) await this.#endWriting();
      await this.#lockAs(before);
      throw error;
    }
  }

  async #endWriting(): Promise<void> {
    const lockedFd = this.#lockedFd;
    if (lockedFd === undefined) {
      const message = `${this.name} was opened for writing: open it again to read it only`;
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
    }
    const fd = this.#fd;
    this.#fd = lockedFd;
    this.#lockedFd = undefined;
    if (this.#access === 'write') await this.#lockAs('read');
    await closeFile(fd);
  }

  /** What it gives up, it gives up at once. */
  async #lockAs(access: LockAccess): Promise<void> {
    const before = this.#access;
    const fd = this.#lockedFd ?? this.#fd;
    const locks = { fd, filename: this.path, locking: this.#locking, calls: this.#calls };
    if (RANKS.indexOf(access) < RANKS.indexOf(before)) {
      if (access === 'none') this.#sizeLeft = fs.fstatSync(fd).size;
      unlockImage(locks, before, access);
    } else if (access !== before) {
      await lockImage({ ...locks, access, held: before });
      try {
        if (before === 'none') this.#checkSame(fd);
      } catch (error) {
        unlockImage(locks, access, before);
        throw error;
      }
    }
    this.#access = access;
  }

  /** While it was not locked, others may have replaced it, or made it larger or smaller. */
  #checkSame(fd: number): void {
    const { path } = this;
    const size = this.#sizeLeft;
    const own = fs.fstatSync(fd);
    const named = fs.statSync(path, { throwIfNoEntry: false });
    const isThere = this.#kind.isBlock || (named?.ino === own.ino && named.dev === own.dev);
    if (isThere && (this.#kind.isBlock || own.size === size)) return;
    const what = isThere
      ? `has ${own.size} bytes, and had ${size}`
      : 'is gone, or is another file by now';
    const message = `${path} ${what}: others have changed it while it was open and not in use; open it again`;
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: path });
  }

  /** Makes the disk larger; what is added reads as zero. */
  async grow(size: number): Promise<void> {
    if (this.#kind.isBlock) {
      const message = `${this.name} is a block device of ${this.size} bytes, which cannot be made larger here`;
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
    }
    if (size <= this.size) return;
    this.#attempt({ action: 'resize', offset: this.size, length: size - this.size }, () =>
      fs.ftruncateSync(this.#fd, size),
    );
    this.size = size;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const length = target.byteLength;
    for (let done = 0; done < length; ) {
      const count = this.#attempt({ action: 'read', offset, length }, () =>
        fs.readSync(this.#fd, target, done, length - done, offset + done),
      );
      if (count === 0) throw shortError(this.#request('read', offset, length), offset + done);
      done += count;
    }
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const length = source.byteLength;
    for (let done = 0; done < length; ) {
      done += this.#attempt({ action: 'write', offset, length }, () =>
        fs.writeSync(this.#fd, source, done, length - done, offset + done),
      );
    }
    if (options.fua === true) await this.flush();
  }

  writeNow(offset: number, source: Uint8Array): void {
    const length = source.byteLength;
    this.#attempt({ action: 'write', offset, length }, () => {
      for (let done = 0; done < length; ) {
        done += fs.writeSync(this.#fd, source, done, length - done, offset + done);
      }
      fs.fdatasyncSync(this.#fd);
    });
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const { unmap = true, fast = false } = options;
    // Where a block device cannot zero by itself, the kernel would write the zeroes for ZERO_RANGE.
    const quick = !this.#kind.isBlock || !fast;
    const done =
      (unmap && this.#truncates(offset, length)) ||
      (unmap && this.#punch(offset, length)) ||
      (quick && this.#zeroRange(offset, length));
    if (!done) {
      const message = `${this.name} cannot zero without writing zeroes`;
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
    }
    if (options.fua === true) await this.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#punch(offset, length);
  }

  async flush(): Promise<void> {
    try {
      await fdatasync(this.#fd);
    } catch (error) {
      throw fileError('ERR_DEVICE_IO', { action: 'flush', ...this.#whose() }, error as Error);
    }
  }

  async extents(offset: number, length: number): Promise<ExtentList[]> {
    if (this.#calls !== undefined && this.#seeks) {
      const list = walkExtents(this.#calls, this.#fd, offset, offset + length);
      if (typeof list !== 'string') return [list];
      this.#seeks = false;
    }
    const empty = this.#kind.isEmpty(this.#fd);
    return [ExtentList.of(offset, length, empty ? Status.hole | Status.zero : Status.data)];
  }

  async copyFrom(
    source: Driver,
    { sourceOffset, targetOffset, length }: CopyRange,
  ): Promise<boolean> {
    if (this.#calls === undefined || !(source instanceof FileDriver)) return false;
    if (this.#kind.isBlock || source.#kind.isBlock || this.#apart.has(source)) return false;
    for (let done = 0; done < length; ) {
      const from = { fd: source.#fd, offset: sourceOffset + done };
      const to = { fd: this.#fd, offset: targetOffset + done };
      const count = this.#calls.copyFileRange(from, to, length - done);
      if (count > 0) {
        done += count;
        continue;
      }
      // Nothing copied and no error: the end of the source, or a file system that only pretends to copy.
      if (count === 0 && done === 0) return false;
      if (count === 0) throw shortError(source.#request('copy', sourceOffset, length), from.offset);
      const errno = errnoName(count);
      if (done === 0 && NO_COPY.has(errno)) this.#apart.add(source);
      if (done === 0 && (NO_COPY.has(errno) || errno === 'EINVAL')) return false;
      throw fileError('ERR_DEVICE_IO', this.#request('copy to', targetOffset, length), errno);
    }
    return true;
  }

  async close(): Promise<void> {
    try {
      if (this.#lockedFd !== undefined) await closeFile(this.#lockedFd);
      await closeFile(this.#fd);
    } catch (error) {
      throw fileError('ERR_DEVICE_IO', { action: 'close', device: this.name }, error as Error);
    }
  }

  /**
   * Without system calls, only a range that reaches the end can become a hole: cut it off and grow again. A
   * file that has grown since it was opened is left as it is: what others appended would be cut off too.
   */
  #truncates(offset: number, length: number): boolean {
    if (this.#calls !== undefined || this.#kind.isBlock || offset + length !== this.size)
      return false;
    return this.#attempt({ action: 'zero', offset, length }, () => {
      if (fs.fstatSync(this.#fd).size !== this.size) return false;
      fs.ftruncateSync(this.#fd, offset);
      fs.ftruncateSync(this.#fd, this.size);
      return true;
    });
  }

  #punch(offset: number, length: number): boolean {
    if (this.#calls === undefined || !this.#punches) return false;
    this.#punches = this.#works(this.#calls.punchHole(this.#fd, offset, length), offset, length);
    return this.#punches;
  }

  #zeroRange(offset: number, length: number): boolean {
    if (this.#calls === undefined || !this.#zeroes) return false;
    this.#zeroes = this.#works(this.#calls.zeroRange(this.#fd, offset, length), offset, length);
    return this.#zeroes;
  }

  /** Whether a call that zeroes did its work; false where this file has no such call. */
  #works(result: number, offset: number, length: number): boolean {
    if (result >= 0) return true;
    const errno = errnoName(result);
    if (UNSUPPORTED.has(errno)) return false;
    throw fileError('ERR_DEVICE_IO', this.#request('zero', offset, length), errno);
  }

  #attempt<T>(what: Omit<FileRequest, 'device'>, call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw fileError('ERR_DEVICE_IO', { ...what, ...this.#whose() }, error as Error);
    }
  }

  #whose(): Pick<FileRequest, 'device' | 'isBlock'> {
    return { device: this.name, isBlock: this.#kind.isBlock };
  }

  #request(action: string, offset: number, length: number): FileRequest {
    return { action, offset, length, ...this.#whose() };
  }
}

/** Someone else's file may have taken the name of one that is gone, or was renamed. */
function checkInode(filename: string, { inode }: FileKind, wanted: string | undefined): void {
  if (wanted === undefined || wanted === inode) return;
  const message = `Cannot open ${filename}: by now this is the name of another file (inode ${inode}, not ${wanted}); leave files in their place while they are used`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename });
}
