import { Context, type ExtentList, Status } from '../../../extent/index.js';
import {
  EXTENDED_EXTENT_BYTES,
  EXTENT_BYTES,
  readExtendedExtentFlags,
  readExtendedExtentLength,
  readExtendedExtentLowFlags,
  readExtentFlags,
  readExtentLength,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import type { PendingRequest } from './pending-request.js';

export interface StatusContexts {
  /** Bytes in the export; no extent is believed beyond. */
  readonly size: number;
  /** Names of the granted contexts by id. */
  readonly contexts: ReadonlyMap<number, string>;
}

/** The flags of `base:allocation` (hole 1, zero 2) as {@link Status}. */
const STATUS = [Status.data, Status.hole, Status.zero, Status.hole | Status.zero] as const;

/** Where the extents belong. */
type AskedStatus = Pick<PendingRequest, 'offset' | 'length' | 'lists'>;

/** Turns the extents of status chunks into lists, as they arrive: a chunk may be 8 MiB long. */
export class StatusReader {
  readonly #contexts: StatusContexts;
  /** Undefined where nobody asked for this context, or the caller gave up: then it is passed over. */
  #list: ExtentList | undefined;
  #allocation = false;
  /** No extent may begin here or behind: those before the last must stay inside the request. */
  #end = 0;

  constructor(contexts: StatusContexts) {
    this.#contexts = contexts;
  }

  /** Begins the chunk of one context. */
  begin(request: AskedStatus, id: number): void {
    const name = this.#contexts.contexts.get(id);
    if (name === undefined) throw violation(`extents of the metadata context ${id}, never granted`);
    this.#list = request.lists?.get(id);
    if (this.#list !== undefined && this.#list.count > 0) {
      throw violation(`extents of "${name}" twice in one reply`);
    }
    this.#allocation = name === Context.allocation;
    this.#end = request.offset + request.length;
  }

  /** Adds `count` extents of 32-bit length and flags ("NBD_REPLY_TYPE_BLOCK_STATUS"). */
  add(view: DataView, at: number, count: number): void {
    const list = this.#list;
    if (list === undefined) return;
    for (let i = at; i < at + count * EXTENT_BYTES; i += EXTENT_BYTES) {
      const flags = readExtentFlags(view, i);
      this.#push(list, readExtentLength(view, i), this.#allocation ? STATUS[flags & 3] : flags);
    }
  }

  /** Adds `count` extents of 64-bit length and flags ("NBD_REPLY_TYPE_BLOCK_STATUS_EXT"). */
  addExtended(view: DataView, at: number, count: number): void {
    const list = this.#list;
    if (list === undefined) return;
    for (let i = at; i < at + count * EXTENDED_EXTENT_BYTES; i += EXTENDED_EXTENT_BYTES) {
      // The low half alone: as one number, flags of 64 bits lose their lowest.
      const flags = this.#allocation
        ? STATUS[readExtendedExtentLowFlags(view, i) & 3]
        : readExtendedExtentFlags(view, i);
      this.#push(list, readExtendedExtentLength(view, i), flags);
    }
  }

  #push(list: ExtentList, length: number, flags: number): void {
    if (length === 0) throw violation('an extent of no bytes');
    if (list.end >= this.#end) throw violation('more extents than the range needs');
    list.push(Math.min(length, this.#contexts.size - list.end), flags);
  }
}
