import fs from 'node:fs';
import { dirname } from 'node:path';
import { type FileOperations, fileOperations } from '#dist/files/index.js';

/** Thrown by the step at which the power fails, and by all after it. */
export class PowerCut extends Error {}

/** A file by itself, whatever it is called. */
interface Inode {
  written: Buffer;
  /** What has been synced. */
  durable: Buffer;
}

/**
 * Real files, and beside them a record of what would be left of them: bytes that were not synced and
 * names that the folder was not synced for may or may not have reached the disk.
 */
export class FailingDisk implements FileOperations {
  steps = 0;
  readonly #cutAt: number;
  readonly #inodes = new Map<number, Inode>();
  readonly #names = new Map<string, Inode>();
  readonly #durableNames = new Map<string, Inode>();

  /** The power fails in step `cutAt`; a write is then half done. */
  constructor(cutAt: number, existing: readonly string[]) {
    this.#cutAt = cutAt;
    for (const path of existing) this.#names.set(path, this.#inodeOf(fs.openSync(path, 'r')));
    for (const [path, inode] of this.#names) this.#durableNames.set(path, inode);
  }

  create(path: string, mode: number): number {
    this.#step();
    const fd = fileOperations.create(path, mode);
    this.#names.set(path, this.#inodeOf(fd));
    return fd;
  }

  write(fd: number, bytes: Uint8Array, position: number): void {
    const cut = ++this.steps >= this.#cutAt;
    const inode = this.#inodeOf(fd);
    if (this.steps > this.#cutAt) throw new PowerCut();
    const done = cut ? bytes.subarray(0, bytes.length >> 1) : bytes;
    fileOperations.write(fd, done, position);
    const grown = Buffer.alloc(Math.max(inode.written.length, position + done.length));
    grown.set(inode.written);
    grown.set(done, position);
    inode.written = grown;
    if (cut) throw new PowerCut();
  }

  sync(fd: number): void {
    this.#step();
    const inode = this.#inodeOf(fd);
    inode.durable = Buffer.from(inode.written);
  }

  rename(from: string, to: string): void {
    this.#step();
    fileOperations.rename(from, to);
    this.#names.set(to, this.#names.get(from)!);
    this.#names.delete(from);
  }

  syncFolder(path: string): void {
    this.#step();
    for (const known of [...this.#durableNames.keys()]) {
      if (dirname(known) === dirname(path)) this.#durableNames.delete(known);
    }
    for (const [name, inode] of this.#names) this.#durableNames.set(name, inode);
  }

  remove(path: string): void {
    this.#step();
    fileOperations.remove(path);
    this.#names.delete(path);
  }

  /** What may be found under a name when the power is back. */
  leftovers(path: string): (Buffer | undefined)[] {
    return [this.#names, this.#durableNames].flatMap((names) => {
      const inode = names.get(path);
      return [inode?.written, inode?.durable];
    });
  }

  #step(): void {
    if (++this.steps >= this.#cutAt) throw new PowerCut();
  }

  #inodeOf(fd: number): Inode {
    const { ino } = fs.fstatSync(fd);
    let inode = this.#inodes.get(ino);
    if (inode === undefined) {
      const content = fs.readFileSync(`/proc/self/fd/${fd}`);
      inode = { written: content, durable: Buffer.from(content) };
      this.#inodes.set(ino, inode);
      // Held open, so that no later file gets the number of this one.
      fs.openSync(`/proc/self/fd/${fd}`, 'r');
    }
    return inode;
  }
}
