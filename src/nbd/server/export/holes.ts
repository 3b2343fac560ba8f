import { Context, type ExtentList, Status } from '../../../extent/index.js';
import type { NbdExportDevice } from './export.js';
import { tells } from './status.js';

const MiB = 1024 * 1024;
/** How far one question looks ahead where all has been data. */
const MAX_AHEAD = 64 * MiB;

const CONTEXTS = { contexts: [Context.allocation], signal: new AbortController().signal };

/** What is asked about holes. */
type AskedDevice = Pick<NbdExportDevice, 'size' | 'someExtents'>;

/**
 * Tells reads what need not be read because it is zero. The last run of data is remembered, so that a dense disk
 * costs one question for many reads; by each connection for itself, since each has its own place on the disk. Only
 * data is remembered: to take for data what has become zero since is harmless, the other way round would not be.
 */
export class Holes {
  readonly #device: AskedDevice;
  #dataFrom = 0;
  #dataEnd = 0;
  #ahead = 0;

  constructor(device: AskedDevice) {
    this.#device = device;
  }

  /** Whether a range is known to be data; then there is nothing to find. */
  isData(offset: number, length: number): boolean {
    return offset >= this.#dataFrom && offset + length <= this.#dataEnd;
  }

  /** The status from `offset` on, not necessarily of the whole range; undefined where it is data. */
  async find(offset: number, length: number): Promise<ExtentList | undefined> {
    const span = Math.min(Math.max(length, this.#ahead), this.#device.size - offset);
    let list: ExtentList | undefined;
    try {
      [list] = await this.#device.someExtents(offset, span, CONTEXTS);
    } catch {
      // What has no status is read: it may still be readable, and if it is not, the read will say why.
      return undefined;
    }
    if (!tells(list, offset)) return undefined;
    if ((list.flagsAt(0) & Status.zero) !== 0 || list.endAt(0) < offset + length) {
      this.#ahead = 0;
      return list;
    }
    this.#remember(offset, list.endAt(0));
    return undefined;
  }

  #remember(from: number, end: number): void {
    const joins = from >= this.#dataFrom && from <= this.#dataEnd;
    if (!joins) this.#dataFrom = from;
    this.#dataEnd = end;
    this.#ahead = Math.min(Math.max(2 * this.#ahead, 2 * MiB), MAX_AHEAD);
  }
}
