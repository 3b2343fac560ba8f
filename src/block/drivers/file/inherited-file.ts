/** A file or a block device that the process has got as an open descriptor: `< disk.raw`, `> disk.raw`. */
import fs from 'node:fs';
import { LacunaError } from '../../../errors/index.js';
import { fileError } from '../../../files/index.js';
import { type BlockDevice, Device } from '../../contract/index.js';
import { type SystemCalls, systemCalls } from './ffi.js';
import { FileDriver } from './file.js';
import { FileWindow } from './file-window.js';

/**
 * Less than this is read and written as a stream as well: that takes no time, and files of kernel file systems hold more
 * than their size says.
 */
const WORTH_OPENING = 2 ** 20;

/** What a descriptor leads to, from the place on where reading or writing would go on. */
export class InheritedFile {
  readonly #fd: number;
  readonly #calls: SystemCalls | undefined;
  readonly #isBlock: boolean;
  /** Bytes before that place. */
  readonly #start: number;
  /** Whether it can be read or written at a place of our choice; otherwise it must be used like a stream. */
  readonly #hasPlace: boolean;
  /** Bytes of the file. */
  readonly #size: number;

  private constructor(fd: number, calls: SystemCalls | undefined, stat: fs.Stats) {
    this.#fd = fd;
    this.#calls = calls;
    this.#isBlock = stat.isBlockDevice();
    this.#size = stat.size;
    const place = placeOf(fd);
    this.#hasPlace = calls !== undefined && place !== undefined && !place.appends;
    this.#start = place?.position ?? 0;
  }

  /** Undefined where it is a pipe or another stream. */
  static async of(fd: number): Promise<InheritedFile | undefined> {
    const stat = fs.fstatSync(fd, { bigint: false });
    if (!stat.isFile() && !stat.isBlockDevice()) return undefined;
    return new InheritedFile(fd, systemCalls(), stat);
  }

  /** The one of some paths that leads to it; undefined where none does. */
  pathAmong(paths: readonly string[]): string | undefined {
    return paths.find((path) => this.#isAt(path));
  }

  /** Whether a path leads to the same file. */
  #isAt(path: string): boolean {
    const own = fs.fstatSync(this.#fd, { bigint: true });
    const other = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    if (other === undefined) return false;
    return own.rdev !== 0n
      ? own.rdev === other.rdev
      : own.dev === other.dev && own.ino === other.ino;
  }

  /**
   * Opens what remains of it; undefined where it must be read as a stream: that is little, this user may only use the
   * descriptor itself, or the system does not tell where that stands.
   */
  async openToRead(): Promise<BlockDevice | undefined> {
    if (!this.#hasPlace) return undefined;
    const driver = await this.#open(true);
    if (driver === undefined) return undefined;
    const length = driver.size - this.#start;
    if (length >= WORTH_OPENING) return this.#windowOf(driver, length, driver.size === length);
    await driver.close();
    return undefined;
  }

  /**
   * Opens the next `length` bytes of it to write them, and makes a file longer where it ends before; undefined as in
   * {@link openToRead}, and where it is appended to.
   */
  async openToWrite(length: number): Promise<BlockDevice | undefined> {
    if (!this.#hasPlace) return undefined;
    // A device is opened whatever the length, for that is how one that is mounted, or in use, is found out.
    if (length < WORTH_OPENING && !this.#isBlock) return undefined;
    const end = this.#start + length;
    const isNew = !this.#isBlock && this.#size <= this.#start;
    if (!this.#isBlock && this.#size < end) this.#resize(end);
    const driver = await this.#open(false);
    if (driver === undefined) this.undo();
    // A device may have less room: a copy compares the sizes.
    const room = this.#isBlock ? Math.max(0, (driver?.size ?? 0) - this.#start) : length;
    return driver && this.#windowOf(driver, room, driver.size === room, isNew);
  }

  /** Goes on behind `length` bytes, as if they had been read or written. */
  moveOn(length: number): void {
    this.#calls?.seekTo(this.#fd, this.#start + length);
  }

  /** Gives a file that was made longer the size that it had: what is not whole must not look so. */
  undo(): void {
    if (!this.#isBlock && fs.fstatSync(this.#fd).size > this.#size) this.#resize(this.#size);
  }

  #resize(size: number): void {
    try {
      fs.ftruncateSync(this.#fd, size);
    } catch (error) {
      const request = { action: 'resize', device: 'standard output' };
      throw fileError('ERR_DEVICE_IO', request, error as Error);
    }
  }

  async #open(readOnly: boolean): Promise<FileDriver | undefined> {
    // A device that is written is opened so that nobody else has it; a file belongs to the shell, with its locks.
    const locking = this.#isBlock && !readOnly ? 'auto' : 'off';
    const description = { driver: 'file', locking, 'read-only': readOnly } as const;
    try {
      return await FileDriver.open({ ...description, filename: this.#path() });
    } catch (error) {
      const isForbidden = error instanceof LacunaError && error.errno === 'EACCES';
      if (isForbidden) return undefined;
      throw error;
    }
  }

  /** Its own name, where it still has that. */
  #path(): string {
    const link = `/proc/self/fd/${this.#fd}`;
    try {
      const path = fs.readlinkSync(link);
      return this.#isAt(path) ? path : link;
    } catch {
      return link;
    }
  }

  async #windowOf(
    driver: FileDriver,
    length: number,
    isWhole: boolean,
    knownZero = false,
  ): Promise<BlockDevice | undefined> {
    if (isWhole && this.#start === 0) return new Device(driver, { knownZero });
    const { minimum } = driver.limits;
    if (this.#start % minimum === 0 && length % minimum === 0) {
      return new Device(new FileWindow(driver, { offset: this.#start, length }), { knownZero });
    }
    await driver.close();
    return undefined;
  }
}

/** The position of a descriptor, and whether every write goes to the end. */
function placeOf(fd: number): { position: number; appends: boolean } | undefined {
  try {
    const text = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
    const position = Number(/^pos:\s*(\d+)$/m.exec(text)?.[1]);
    const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(text)?.[1] ?? '', 8);
    if (!Number.isSafeInteger(position) || Number.isNaN(flags)) return undefined;
    return { position, appends: (flags & fs.constants.O_APPEND) !== 0 };
  } catch {
    return undefined;
  }
}
