import { LacunaError } from '../../../../errors/index.js';
import { alignDown, alignUp } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';

/** Storage tears a write at these, and nowhere else: what must change at once stays inside one. */
const SECTOR = 512;

/** Part of a table that changed in memory: bytes from `from` to `to`. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** The smallest span that holds both. */
export function joinSpans(a: Span | undefined, b: Span | undefined): Span | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return { from: Math.min(a.from, b.from), to: Math.max(a.to, b.to) };
}

/** The file of an image, or its data file, as the writer of the image sees it. */
export class HostFile {
  readonly name: string;
  readonly #device: BlockDevice;
  readonly #unit: number;
  #broken?: unknown;

  constructor(device: BlockDevice) {
    this.name = device.name;
    this.#device = device;
    this.#unit = Math.max(SECTOR, device.limits.minimum);
  }

  /** Whether something could not be made durable: nothing more is written then. */
  get broken(): boolean {
    return this.#broken !== undefined;
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#device.read(offset, target);
  }

  /** Bytes that there is room for. */
  get room(): number {
    return this.#device.size;
  }

  /** Whether ranges can be made to read as zero without writing zeroes. */
  get canZero(): boolean {
    return this.#device.capabilities.zero;
  }

  /** First byte behind what the file holds. */
  get end(): number {
    return this.#device.end;
  }

  /** What must be written as a whole: a sector, or what the driver takes for one. */
  get unit(): number {
    return this.#unit;
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#check();
    await this.#device.write(offset, source);
  }

  /** Makes sectors durable before it returns; false, and nothing is done, where that takes waiting. */
  writeNow(offset: number, sectors: Uint8Array): boolean {
    this.#check();
    try {
      return this.#device.writeNow?.(offset, sectors) ?? false;
    } catch (error) {
      this.#broken ??= error;
      throw error;
    }
  }

  /** The whole sectors of a table that hold a span of it. */
  sectorsOf(table: Uint8Array, span: Span): Uint8Array {
    const to = Math.min(table.length, alignUp(span.to, this.#unit));
    return table.subarray(alignDown(span.from, this.#unit), to);
  }

  /** Writes the sectors that hold a span of a table, which lies at `offset`. */
  async writeSectors(offset: number, sectors: Uint8Array, span: Span): Promise<void> {
    await this.write(offset + alignDown(span.from, this.#unit), sectors);
  }

  /** Writes what changed of a table that lies at `offset`. */
  async writeSpan(offset: number, table: Uint8Array, span: Span): Promise<void> {
    await this.writeSectors(offset, this.sectorsOf(table, span), span);
  }

  /**
   * Makes all that was written durable. Where that fails once, nobody can tell what was lost: the file is not written
   * any more, and every later flush fails, so that the order of writes stays what it must be.
   */
  flush(): Promise<void> {
    return this.whole(() => this.#device.flush());
  }

  /** Runs a step that leaves the file in an unknown state where it fails; nothing is written behind it then. */
  async whole<T>(step: () => Promise<T>): Promise<T> {
    this.#check();
    try {
      return await step();
    } catch (error) {
      this.#broken ??= error;
      throw error;
    }
  }

  /** Makes a range read as zero. */
  async zero(offset: number, length: number, unmap: boolean): Promise<void> {
    this.#check();
    await this.#device.zero(offset, length, { unmap });
  }

  /** Gives the space of a range back to the file system, where that is possible: it costs nobody's data if not. */
  async discard(offset: number, length: number): Promise<void> {
    if (!this.#device.capabilities.discard) return;
    try {
      await this.#device.discard(offset, length);
    } catch {
      // It would have been a kindness to others; the image is as good without it.
    }
  }

  #check(): void {
    if (this.#broken === undefined) return;
    const message = `${this.name} could not be written to its end before: open it again, and write anew what was not flushed`;
    throw new LacunaError('ERR_DEVICE_IO', message, { device: this.name, cause: this.#broken });
  }
}
