import { ExtentList } from '../../../extent/index.js';
import type {
  Capabilities,
  Driver,
  Limits,
  WriteOptions,
  ZeroOptions,
} from '../../contract/index.js';

/** A part of a file as a device of its own. It has no description: nothing but this opening says where it begins. */
export class FileWindow implements Driver {
  readonly name: string;
  readonly size: number;
  readonly limits: Limits;
  readonly capabilities: Capabilities;
  readonly #file: Driver;
  readonly #start: number;

  /** @param range Its part of the file, in bytes; it begins and ends at multiples of the file's smallest request. */
  constructor(file: Driver, { offset, length }: { offset: number; length: number }) {
    this.name = file.name;
    this.size = length;
    this.limits = file.limits;
    this.capabilities = file.capabilities;
    this.#file = file;
    this.#start = offset;
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#file.read(this.#start + offset, target, signal);
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    return this.#file.write!(this.#start + offset, source, options);
  }

  zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    return this.#file.zero!(this.#start + offset, length, options);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#file.discard!(this.#start + offset, length);
  }

  flush(): Promise<void> {
    return this.#file.flush!();
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const lists = await this.#file.extents!(this.#start + offset, length, contexts, signal);
    return lists.map((list) => {
      const moved = new ExtentList(list.offset - this.#start);
      for (const extent of list) moved.push(extent.length, extent.flags);
      return moved;
    });
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
