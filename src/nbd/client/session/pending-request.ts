import { abortedError, type LacunaError } from '../../../errors/index.js';
import { ExtentList } from '../../../extent/index.js';
import { onAbort } from '../../../util/index.js';
import { Command, type RequestHeader } from '../../wire/index.js';
import { Coverage } from './coverage.js';

/** What one request asks of the server, and where its bytes come from or go to. */
export interface RequestSpec {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Where a read's bytes go. */
  readonly target?: Uint8Array;
  /** A write's bytes. */
  readonly source?: Uint8Array;
  /** The ids of the contexts whose extents a status request is made for. */
  readonly contexts?: readonly number[];
  /** What stands behind a status request that does not mean all contexts ("NBD_FLAG_BLOCK_STATUS_PAYLOAD"). */
  readonly statusPayload?: Uint8Array;
  readonly signal?: AbortSignal;
}

/** A status request's lists by context id, empty where the server told nothing. */
export type RequestResult = ReadonlyMap<number, ExtentList>;

const NO_LISTS: RequestResult = new Map();

/**
 * A slot for one request in flight. Slots are used again, so that a request allocates little more than
 * its promise. A slot is free once the reply is complete *and* Node has let go of the request's bytes;
 * its promise may have been settled earlier, when the caller gave up.
 */
export class PendingRequest implements RequestHeader {
  /** The slot's place in its table. */
  readonly cookieLow: number;
  /** Counts the slot's uses, so that a reply to an earlier one is noticed. */
  cookieHigh = 0;
  command: number = Command.read;
  flags = 0;
  offset = 0;
  length = 0;
  /** Where a read's bytes go; undefined once nobody wants them any more. */
  target: Uint8Array | undefined;
  /** What an error reply said. */
  failure: LacunaError | undefined;
  /** The whole reply has arrived. */
  replied = false;
  /** Node holds none of the caller's memory for sending. */
  released = true;
  /** The socket was given a part of `target` and will write to it. */
  receiving = false;
  /** The signal fired, but the caller's memory is still lent out. */
  giveUp = false;
  readonly coverage = new Coverage();
  /** The lists of the contexts that were asked, by id; each is filled by one chunk. */
  lists: Map<number, ExtentList> | undefined;
  /** Called by the signal when it fires; set once when the slot is made, not for each request. */
  onAbort: () => void = nothing;
  /** Called by Node when it has sent a write's bytes; set once as well. */
  onSent: () => void = nothing;

  #signal: AbortSignal | undefined;
  #resolve: ((result: RequestResult) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;

  constructor(index: number) {
    this.cookieLow = index;
  }

  get active(): boolean {
    return !this.replied || !this.released;
  }

  get settled(): boolean {
    return this.#resolve === undefined;
  }

  begin(spec: RequestSpec): Promise<RequestResult> {
    this.cookieHigh = (this.cookieHigh + 1) >>> 0;
    this.command = spec.command;
    this.flags = spec.flags;
    this.offset = spec.offset;
    this.length = spec.length;
    this.target = spec.target;
    this.failure = undefined;
    this.replied = false;
    this.released = spec.source === undefined;
    this.receiving = false;
    this.giveUp = false;
    this.coverage.reset();
    this.lists = spec.contexts && emptyLists(spec.contexts, spec.offset);
    this.#listenTo(spec.signal);
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  resolve(): void {
    const resolve = this.#resolve;
    const result = this.lists ?? NO_LISTS;
    this.#clear();
    resolve?.(result);
  }

  reject(error: unknown): void {
    const reject = this.#reject;
    this.#clear();
    reject?.(error);
  }

  /** Ends the promise, but not the slot: the reply is still to come, and its bytes go nowhere. */
  abort(): void {
    this.reject(abortedError(this.#signal));
  }

  #listenTo(signal: AbortSignal | undefined): void {
    this.#signal = signal;
    if (signal === undefined) return;
    onAbort(signal, this.onAbort);
  }

  #clear(): void {
    this.#signal?.removeEventListener('abort', this.onAbort);
    this.#signal = undefined;
    this.#resolve = undefined;
    this.#reject = undefined;
    this.target = undefined;
    this.lists = undefined;
  }
}

function emptyLists(contexts: readonly number[], offset: number): Map<number, ExtentList> {
  return new Map(contexts.map((id) => [id, new ExtentList(offset)]));
}

function nothing(): void {}
