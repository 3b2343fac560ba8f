import { LacunaError } from '../../errors/index.js';
import { Context, type ExtentList } from '../../extent/index.js';
import type { NbdTls } from '../tls.js';
import { formatNbdUri, type NbdServerAddress } from '../uri.js';
import { Command, CommandFlag } from '../wire/constants.js';
import { converse } from './converse.js';
import { ExportProperties } from './export-properties.js';
import { disconnected, locate } from './failures.js';
import { type Agreement, handshake } from './handshake.js';
import { type ListedExport, listExports } from './list.js';
import { checkRange } from './ranges.js';
import { Session } from './session.js';
import type { Transport } from './transport.js';

/** Whom to connect to, and the limits of waiting. */
export interface NbdConnectOptions {
  readonly server: NbdServerAddress;
  /** Name of the export; default the empty name, the server's default export. */
  readonly export?: string;
  /** Requires TLS, and says who may be trusted. Default: in plain. */
  readonly tls?: NbdTls;
  /** Metadata contexts that the server must grant, beside `base:allocation`, which is always asked. */
  readonly contexts?: readonly string[];
  /** Limit for connecting and the handshake together. Default 15 s. */
  readonly connectTimeoutMs?: number;
  /** No progress for so long with requests pending ends the connection. Default 5 min; 0 for ever. */
  readonly requestTimeoutMs?: number;
  /** Ends connecting; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

export interface NbdWriteOptions {
  /** The bytes are durable when the call returns. */
  readonly fua?: boolean;
  readonly signal?: AbortSignal;
}

export interface NbdZeroOptions extends NbdWriteOptions {
  /** The range may become a hole. Default true. */
  readonly unmap?: boolean;
  /** Fail with errno ENOTSUP rather than be as slow as writing. Default false. */
  readonly fast?: boolean;
}

/** Long, because a server may flush or zero a whole disk in one request. */
const REQUEST_TIMEOUT_MS = 300_000;
/** How long a server may take to hang up after our goodbye. */
const GOODBYE_MS = 1000;

/**
 * One connection to an export of an NBD server. Any number of requests may be in flight; they complete
 * in any order, and the server may carry them out in any order, so requests that overlap must be
 * awaited. Offsets and lengths should be multiples of `minimumBlock`.
 *
 * Every request fails with a {@link LacunaError}: ERR_NBD_REMOTE when the server refuses it (`errno` says
 * why; the connection lives on), ERR_NBD_DISCONNECTED, ERR_NBD_PROTOCOL or ERR_TIMEOUT when the
 * connection is lost with all that was in flight, ERR_DEVICE_CLOSED after `close`, ERR_ABORTED.
 */
export class NbdClient extends ExportProperties {
  /** The export's URI, as messages name it. */
  readonly name: string;
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #contextIds: ReadonlyMap<string, number>;
  #closing: Promise<void> | undefined;

  /**
   * @throws LacunaError ERR_NBD_DISCONNECTED, ERR_TIMEOUT, ERR_NBD_PROTOCOL, ERR_NBD_UNSUPPORTED, ERR_NBD_TLS,
   * ERR_DEVICE_OPEN when the server refuses the export, ERR_CONTEXT_UNKNOWN, ERR_ABORTED.
   */
  static async connect(options: NbdConnectOptions): Promise<NbdClient> {
    const exportName = options.export ?? '';
    const name = formatNbdUri(options.server, exportName, options.tls);
    const asked = new Set(options.contexts);
    asked.delete(Context.allocation);
    const conversation = handshake({
      export: exportName,
      contexts: [...asked],
      tls: options.tls !== undefined,
    });
    return converse(
      conversation,
      { ...options, name },
      (transport, agreement) =>
        new NbdClient(transport, agreement, {
          name,
          requestTimeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
        }),
    );
  }

  /** The exports that a server offers. */
  static async list(
    server: NbdServerAddress,
    options: Pick<NbdConnectOptions, 'tls' | 'connectTimeoutMs' | 'signal'> = {},
  ): Promise<ListedExport[]> {
    return converse(
      listExports({ tls: options.tls !== undefined }),
      { ...options, server },
      (transport, found) => {
        transport.destroy(disconnected('all is said'));
        return found;
      },
    );
  }

  private constructor(
    transport: Transport,
    agreement: Agreement,
    options: { name: string; requestTimeoutMs: number },
  ) {
    super(agreement);
    this.name = options.name;
    this.#transport = transport;
    this.#contextIds = new Map(agreement.contexts.map(({ id, name }) => [name, id]));
    this.#session = new Session(transport, {
      ...options,
      size: agreement.size,
      structured: agreement.structured,
      contexts: new Map(agreement.contexts.map(({ id, name }) => [id, name])),
    });
    transport.sink = this.#session;
  }

  /** Requests that the server has not answered yet. */
  get pending(): number {
    return this.#session.pending;
  }

  /** Whether the server said that it is going away: it takes no new requests. */
  get shuttingDown(): boolean {
    return this.#session.shuttingDown;
  }

  /**
   * Fills the whole of `target` with the bytes at `offset`. They are received straight into it, so it
   * may be a view of shared memory, and must stay where it is until the promise is settled.
   */
  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const { length } = target;
    this.#check(offset, length, this.maximumPayload);
    if (length === 0) return;
    const command = Command.read;
    await this.#session.submit({ command, flags: 0, offset, length, target, signal });
  }

  /** Stores the whole of `source`, which must not change until the promise is settled. */
  async write(offset: number, source: Uint8Array, options: NbdWriteOptions = {}): Promise<void> {
    const { length } = source;
    this.#check(offset, length, this.maximumPayload);
    this.#require(!this.readOnly, 'write to it: it is read-only');
    if (length === 0) return;
    const { signal } = options;
    const flags = this.#fua(options);
    await this.#session.submit({ command: Command.write, flags, offset, length, source, signal });
  }

  /** Makes a range read as zero. */
  async writeZeroes(offset: number, length: number, options: NbdZeroOptions = {}): Promise<void> {
    this.#check(offset, length, this.maximumLength);
    this.#require(this.canWriteZeroes, 'write zeroes without sending them');
    const { unmap = true, fast = false, signal } = options;
    if (fast) this.#require(this.canFastZero, 'tell whether zeroing would be slow');
    if (length === 0) return;
    let flags = this.#fua(options);
    if (!unmap) flags |= CommandFlag.noHole;
    if (fast) flags |= CommandFlag.fastZero;
    await this.#session.submit({ command: Command.writeZeroes, flags, offset, length, signal });
  }

  /** Says that a range is not needed any more; what it reads as afterwards is undefined. */
  async trim(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    this.#check(offset, length, this.maximumLength);
    this.#require(this.canTrim, 'discard');
    if (length === 0) return;
    await this.#session.submit({ command: Command.trim, flags: 0, offset, length, signal });
  }

  /** Makes every write durable whose promise has resolved before. */
  async flush(signal?: AbortSignal): Promise<void> {
    this.#check(0, 0, 0);
    this.#require(this.canFlush, 'flush');
    await this.#session.submit({ command: Command.flush, flags: 0, offset: 0, length: 0, signal });
  }

  /**
   * The status of a range, one list for each context asked, in that order. Each begins at `offset` and
   * may end before or behind the range, but never behind the export: ask again from where it ends.
   * The flags of `base:allocation` are `Status` bits, those of other contexts as the server sent them.
   *
   * @throws LacunaError ERR_CONTEXT_UNKNOWN for a context that was not granted.
   */
  async blockStatus(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    this.#check(offset, length, Number.MAX_SAFE_INTEGER);
    if (length === 0) throw new RangeError('the status of 0 bytes cannot be asked');
    const ids = contexts.map((context) => this.#contextId(context));
    if (ids.length === 0) return [];
    const request = {
      command: Command.blockStatus,
      flags: 0,
      offset,
      length: Math.min(length, this.maximumLength),
      contexts: ids,
      signal,
    };
    const lists = await this.#session.submit(request);
    return ids.map((id, i) => this.#filled(lists.get(id), contexts[i], request));
  }

  /** Waits for what is in flight, says goodbye and closes; safe to call more than once. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#session.drain();
    if (this.#session.alive) {
      this.#session.sendDisconnect();
      this.#transport.end();
    }
    const timer = setTimeout(() => this.#destroy(), GOODBYE_MS);
    await this.#transport.ended;
    clearTimeout(timer);
  }

  #destroy(): void {
    this.#transport.destroy(disconnected('closed without an answer'));
  }

  #check(offset: number, length: number, longest: number): void {
    if (this.#closing !== undefined) {
      throw new LacunaError('ERR_DEVICE_CLOSED', `${this.name}: the connection is closed`, {
        device: this.name,
      });
    }
    checkRange({ offset, length }, this.size, longest);
  }

  #require(able: boolean, what: string): void {
    if (able) return;
    throw new LacunaError('ERR_NBD_UNSUPPORTED', `${this.name}: the export cannot ${what}`, {
      device: this.name,
    });
  }

  #fua(options: NbdWriteOptions): number {
    if (!options.fua) return 0;
    this.#require(this.canFua, 'make one request durable; flush instead');
    return CommandFlag.fua;
  }

  #contextId(context: string): number {
    const id = this.#contextIds.get(context);
    if (id !== undefined) return id;
    throw new LacunaError(
      'ERR_CONTEXT_UNKNOWN',
      `${this.name}: the metadata context ${JSON.stringify(context)} was not granted`,
      { device: this.name },
    );
  }

  /** A server that answers without a list it granted broke the rules, but the stream is intact. */
  #filled(
    list: ExtentList | undefined,
    context: string,
    range: { offset: number; length: number },
  ): ExtentList {
    if (list !== undefined && list.count > 0) return list;
    const what = `the server answered without the extents of ${JSON.stringify(context)}`;
    throw locate(new LacunaError('ERR_NBD_PROTOCOL', what), this.name, range);
  }
}
