import type {
  BlockDevice,
  ExtentsOptions,
  RequestOptions,
  WriteOptions,
  ZeroOptions,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { Context, type ExtentList, isDirtyContext } from '../../extent/index.js';
import { orAborted } from '../../util/index.js';
import { Edge } from './edge.js';
import type { Named } from './failures.js';
import { Gate } from './gate.js';
import type { Node } from './node.js';
import { EVERYTHING, type Permission } from './permissions.js';

/** What an export or a job needs of its node, and what it is called. */
export interface RootOptions {
  readonly name: string;
  readonly what: string;
  readonly node: Node;
  readonly writable: boolean;
  /** What others may do with the node. Default: everything. */
  readonly shares?: readonly Permission[];
  /** It is about this node: what comes to lie above it is not for it. Default false. */
  readonly isPinned?: boolean;
}

/**
 * Where requests enter a graph from outside: an export or a job. It has the gate that a change closes, and counts what is in
 * flight. Its size and abilities stay what they were when it began, whichever node it leads to later.
 *
 * A signal lets the caller of a change go, never the change: that is counted until it has ended below.
 */
export class Root implements BlockDevice, Named {
  readonly name: string;
  readonly what: string;
  readonly size: number;
  readonly limits: BlockDevice['limits'];
  readonly capabilities: BlockDevice['capabilities'];
  /** @internal */
  readonly gate = new Gate();
  /** @internal */
  readonly edge: Edge;
  /** @internal */
  readonly needs: readonly Permission[];
  /** @internal */
  readonly shares: readonly Permission[];
  /** @internal */
  readonly isPinned: boolean;
  readonly #remove: (root: Root) => Promise<void>;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(options: RootOptions, remove: (root: Root) => Promise<void>) {
    const { name, what, node, writable, shares = EVERYTHING, isPinned = false } = options;
    const { capabilities, limits, size } = node.device;
    const { zero, fastZero, discard, flush, contexts } = capabilities;
    const can = writable ? { zero, fastZero, discard, flush } : NO_CHANGES;
    this.name = name;
    this.what = what;
    this.size = size;
    this.limits = { ...limits, minimum: 1, statusMinimum: 1 };
    this.capabilities = {
      ...capabilities,
      ...can,
      write: writable,
      multiConnection: false,
      knownZero: false,
      // What else a node answers, the next one may not, and an export promises for its whole life.
      contexts:
        options.what === 'export'
          ? contexts.filter((each) => each === Context.allocation || isDirtyContext(each))
          : contexts,
    };
    this.needs = writable ? ['read', 'write'] : ['read'];
    this.shares = shares;
    this.isPinned = isPinned;
    this.edge = new Edge(this, { key: 'root', role: 'root' }, node);
    this.#remove = remove;
  }

  /** The node that it leads to now. */
  get node(): Node {
    return this.edge.to;
  }

  get end(): number {
    return this.size;
  }

  get warnings(): readonly string[] {
    return this.edge.warnings;
  }

  get missing() {
    return this.edge.missing;
  }

  async read(offset: number, target: Uint8Array, options?: RequestOptions): Promise<void> {
    this.#checkInside(offset, target?.byteLength);
    const wait = this.#enter(options?.signal);
    if (wait !== undefined) await wait;
    try {
      await this.edge.read(offset, target, options);
    } finally {
      this.gate.leave();
    }
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions = {}): Promise<void> {
    this.#checkWritable();
    this.#checkInside(offset, source?.byteLength);
    if (options.signal === undefined) {
      return this.#ask(() => this.edge.write(offset, source, options));
    }
    const { signal, ...others } = options;
    // A caller that has given up uses its memory for something else. What is no Uint8Array, the node refuses.
    const bytes = source instanceof Uint8Array ? new Uint8Array(source) : source;
    return this.#change(() => this.edge.write(offset, bytes, others), signal);
  }

  async zero(offset: number, length: number, options: ZeroOptions = {}): Promise<void> {
    this.#checkWritable();
    this.#checkInside(offset, length);
    const { signal, ...others } = options;
    return this.#change(() => this.edge.zero(offset, length, others), signal);
  }

  async discard(offset: number, length: number, { signal }: RequestOptions = {}): Promise<void> {
    this.#checkWritable();
    this.#checkInside(offset, length);
    return this.#change(() => this.edge.discard(offset, length), signal);
  }

  async flush({ signal }: RequestOptions = {}): Promise<void> {
    return this.#change(() => this.edge.flush(), signal);
  }

  async extents(offset: number, length: number, options?: ExtentsOptions): Promise<ExtentList[]> {
    this.#checkInside(offset, length);
    return this.#ask(() => this.edge.extents(offset, length, options), options?.signal);
  }

  async someExtents(
    offset: number,
    length: number,
    options?: ExtentsOptions,
  ): Promise<ExtentList[]> {
    this.#checkInside(offset, length);
    return this.#ask(() => this.edge.someExtents(offset, length, options), options?.signal);
  }

  changedElsewhere(): void {}

  /** @internal Runs a piece of a job, which is counted as one request, and waits at the gate before it waits for anything else. */
  pass<T>(piece: () => Promise<T>): Promise<T> {
    return this.#ask(piece);
  }

  /** Waits for the requests in flight and takes it out of its graph. Closing again is harmless. */
  close(): Promise<void> {
    this.#closing ??= this.gate.idle().then(() => this.#remove(this));
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #ask<T>(question: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const wait = this.#enter(signal);
    if (wait !== undefined) await wait;
    try {
      return await question();
    } finally {
      this.gate.leave();
    }
  }

  async #change(request: () => Promise<void>, signal?: AbortSignal): Promise<void> {
    if (signal === undefined) return this.#ask(request);
    const wait = this.#enter(signal);
    if (wait !== undefined) await wait;
    const ended = request().finally(() => this.gate.leave());
    await orAborted(ended, signal);
  }

  #enter(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#closing === undefined) return this.gate.enter(signal);
    const message = `${this.what} '${this.name}' is closed`;
    throw new LacunaError('ERR_DEVICE_CLOSED', message, { device: this.name });
  }

  /** The node may have become larger since. What makes no sense at all, the node refuses. */
  #checkInside(offset: number, length: number): void {
    if (!(offset + length > this.size)) return;
    const message = `${length} bytes at ${offset} reach behind the ${this.size} bytes of ${this.what} '${this.name}'`;
    throw new RangeError(message);
  }

  #checkWritable(): void {
    if (this.capabilities.write) return;
    const message = `${this.what} '${this.name}' is only for reading: add one that is writable`;
    throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
  }
}

const NO_CHANGES = { zero: false, fastZero: false, discard: false, flush: false };
