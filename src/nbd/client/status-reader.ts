import { Context, ExtentList, Status } from '../../extent/index.js';
import { violation } from './failures.js';
import type { PendingRequest } from './pending-request.js';

export interface StatusContexts {
  /** Bytes in the export; no extent is believed beyond. */
  readonly size: number;
  /** Names of the granted contexts by id. */
  readonly contexts: ReadonlyMap<number, string>;
}

/** The flags of `base:allocation` (hole 1, zero 2) as {@link Status}. */
const STATUS = [Status.data, Status.hole, Status.zero, Status.hole | Status.zero] as const;

/** Turns the extents of status chunks into lists, as they arrive: a chunk may be 8 MiB long. */
export class StatusReader {
  readonly #contexts: StatusContexts;
  #list: ExtentList = new ExtentList(0);
  #allocation = false;
  /** No extent may begin here or behind: those before the last must stay inside the request. */
  #end = 0;

  constructor(contexts: StatusContexts) {
    this.#contexts = contexts;
  }

  /** Begins the chunk of one context. */
  begin(request: PendingRequest, id: number): void {
    const name = this.#contexts.contexts.get(id);
    if (name === undefined) throw violation(`extents of the metadata context ${id}, never granted`);
    // Absent only where the caller gave up; the chunk is then checked and forgotten.
    if (request.lists?.has(id)) throw violation(`extents of "${name}" twice in one reply`);
    this.#list = new ExtentList(request.offset);
    request.lists?.set(id, this.#list);
    this.#allocation = name === Context.allocation;
    this.#end = request.offset + request.length;
  }

  /** Adds `count` extents of 32-bit length and flags ("NBD_REPLY_TYPE_BLOCK_STATUS"). */
  add(view: DataView, at: number, count: number): void {
    const list = this.#list;
    const { size } = this.#contexts;
    for (let i = 0; i < count; i++) {
      const length = view.getUint32(at + i * 8);
      const flags = view.getUint32(at + i * 8 + 4);
      if (length === 0) throw violation('an extent of no bytes');
      if (list.end >= this.#end) throw violation('more extents than the range needs');
      const clipped = Math.min(length, size - list.end);
      list.push(clipped, this.#allocation ? STATUS[flags & 3] : flags);
    }
  }
}
