import { type ExtentList, Status } from '../../extent/index.js';
import type { Device } from '../device.js';

/** Holes are looked at where they are at least one part in this many of a file. */
const WORTH = 10;

/**
 * The holes of the file that clusters lie in. An image with preallocated metadata calls everything data, and its file
 * knows better; of other images it has next to nothing to add, and would only break long runs into short ones.
 */
export class FileHoles {
  readonly #list: ExtentList;

  private constructor(list: ExtentList) {
    this.#list = list;
  }

  /** Undefined where the file has few holes, or cannot tell them exactly. */
  static async look(file: Device): Promise<FileHoles | undefined> {
    if (!file.capabilities.exactStatus || file.size === 0) return undefined;
    const [list] = await file.someExtents(0, file.size);
    let holes = 0;
    for (let i = 0; i < list.count; i++) {
      if (list.flagsAt(i) & Status.zero) holes += list.endAt(i) - list.startAt(i);
    }
    return holes * WORTH > file.size ? new FileHoles(list) : undefined;
  }

  /** Adds the status of bytes of the file: zero where it has a hole, else data. */
  pushTo(target: ExtentList, offset: number, length: number): void {
    const end = offset + length;
    const known = Math.min(end, this.#list.end);
    if (offset < known) {
      const first = this.#list.indexOf(offset);
      for (let i = first; i < this.#list.count && this.#list.startAt(i) < known; i++) {
        const from = Math.max(offset, this.#list.startAt(i));
        const isHole = (this.#list.flagsAt(i) & Status.zero) !== 0;
        const to = Math.min(known, this.#list.endAt(i));
        target.push(to - from, isHole ? Status.zero : Status.data);
      }
    }
    if (end > known) target.push(end - Math.max(offset, known), Status.data);
  }
}
