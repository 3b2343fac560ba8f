import { LacunaError } from '../../../errors/index.js';
import { Context, type ExtentList, type Range } from '../../../extent/index.js';
import { afterWaiting } from '../../../util/index.js';
import {
  checkAddressKeys,
  checkTlsKeys,
  formatNbdUri,
  type NbdServerAddress,
} from '../../address/index.js';
import { Command, CommandFlag, encodeText, type ListedExport } from '../../wire/index.js';
import type { Transport } from '../connection/index.js';
import { checkTimeLimit, converse } from '../connection/index.js';
import { disconnected } from '../failures/index.js';
import {
  type Agreement,
  askInfo,
  ExportInformation,
  ExportProperties,
  handshake,
  listExports,
} from '../handshake/index.js';
import type { RequestSpec } from '../session/index.js';
import { Session } from '../session/index.js';
import type {
  NbdConnectOptions,
  NbdQueryOptions,
  NbdReadOptions,
  NbdRequestOptions,
  NbdRequests,
  NbdStatusOptions,
  NbdWriteOptions,
  NbdZeroOptions,
} from './client-options.js';
import { checkConnectOptions, checkInfoOptions, checkQueryOptions } from './client-options.js';
import { GrantedContexts } from './granted-contexts.js';
import { checkRange } from './ranges.js';

/** Long, because a server may flush or zero a whole disk in one request. */
const REQUEST_TIMEOUT_MS = 300_000;
/** How long a server may take to hang up after our goodbye. */
const GOODBYE_MS = 1000;
const NOTHING = {};

interface RangeRequest extends Range {
  readonly signal?: AbortSignal;
}

/**
 * One connection to an export of an NBD server. Any number of requests may be in flight; they complete
 * in any order, and the server may carry them out in any order, so requests that overlap must be
 * awaited. Offsets and lengths should be multiples of `minimumBlock`, and must be where the server said so:
 * a request that is not is a RangeError (the end of the export excepted). The device of `openDevice` takes
 * requests of any alignment and reads, changes and writes back what it must.
 *
 * Every request fails with a {@link LacunaError}: ERR_NBD_REMOTE when the server refuses it (`errno` says
 * why; the connection lives on), ERR_NBD_DISCONNECTED, ERR_NBD_PROTOCOL or ERR_TIMEOUT when the
 * connection is lost with all that was in flight, ERR_DEVICE_CLOSED after `close`, ERR_ABORTED.
 */
export class NbdClient extends ExportProperties implements NbdRequests {
  readonly name: string;
  /** @internal What the handshake has agreed on. */
  readonly agreement: Agreement;
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #granted: GrantedContexts;
  /** Changes of several requests, of which none is pending for a moment between two. */
  readonly #inPieces = new Set<Promise<void>>();
  /** The longest zero or trim request that the server is believed to take. */
  #longestChange: number;
  #disconnecting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  /**
   * Connects to a server and enters an export.
   *
   * @throws LacunaError ERR_NBD_DISCONNECTED, ERR_TIMEOUT, ERR_NBD_PROTOCOL, ERR_NBD_UNSUPPORTED, ERR_NBD_TLS,
   * ERR_DEVICE_OPEN when the server refuses the export, ERR_CONTEXT_UNKNOWN, ERR_ABORTED; TypeError or RangeError
   * for an address or a limit that is none, or a name that cannot be sent.
   */
  static async connect(options: NbdConnectOptions): Promise<NbdClient> {
    checkConnectOptions('NbdClient.connect', options);
    const { server, export: exportName = '', tls } = options;
    checkAddressKeys('NbdClient.connect: server', server);
    checkTlsKeys('NbdClient.connect: tls', tls);
    checkNames(exportName, options.contexts);
    const name = formatNbdUri(server, exportName, tls);
    const asked = new Set(options.contexts);
    asked.delete(Context.allocation);
    const conversation = handshake({
      export: exportName,
      contexts: [...asked],
      allocation: options.allocation,
      tls: tls !== undefined,
      extended: options.extendedHeaders,
    });
    const { requestTimeoutMs = REQUEST_TIMEOUT_MS } = options;
    checkTimeLimit('requestTimeoutMs', requestTimeoutMs);
    return converse(
      conversation,
      { ...options, name },
      (transport, agreement) => new NbdClient(transport, agreement, { name, requestTimeoutMs }),
    );
  }

  /** The exports that a server offers. */
  static async list(
    server: NbdServerAddress,
    options: NbdQueryOptions = {},
  ): Promise<ListedExport[]> {
    checkAddressKeys('NbdClient.list', server);
    checkQueryOptions('NbdClient.list', options);
    const conversation = listExports({ tls: options.tls !== undefined });
    return converse(conversation, { ...options, server }, (transport, found) => {
      transport.destroy(disconnected('all is said'));
      return found;
    });
  }

  /** What a server tells about an export, without using it. Fails as {@link connect} does. */
  static async info(
    server: NbdServerAddress,
    options: NbdQueryOptions & { readonly export?: string } = {},
  ): Promise<ExportInformation> {
    checkAddressKeys('NbdClient.info', server);
    checkInfoOptions('NbdClient.info', options);
    const { export: exportName = '', tls } = options;
    checkNames(exportName);
    const name = formatNbdUri(server, exportName, tls);
    const conversation = askInfo({ export: exportName, tls: tls !== undefined });
    return converse(conversation, { ...options, server, name }, (transport, told) => {
      transport.destroy(disconnected('all is said'));
      return new ExportInformation(told);
    });
  }

  private constructor(
    transport: Transport,
    agreement: Agreement,
    options: { name: string; requestTimeoutMs: number },
  ) {
    super(agreement);
    const { size, structured, extended, contexts } = agreement;
    this.name = options.name;
    this.agreement = agreement;
    this.#longestChange = this.maximumLength;
    this.#transport = transport;
    this.#granted = new GrantedContexts(options.name, contexts, this.canChooseContexts);
    this.#session = new Session(transport, {
      ...options,
      size,
      structured,
      extended,
      contexts: new Map(contexts.map(({ id, name }) => [id, name])),
      onShuttingDown: () => void this.#disconnect(),
    });
    transport.sink = this.#session;
  }

  get pending(): number {
    return this.#session.pending;
  }

  /**
   * Whether the server said that it is going away: it takes no new requests, and the connection ends when all is
   * answered.
   */
  get shuttingDown(): boolean {
    return this.#session.shuttingDown;
  }

  async read(offset: number, target: Uint8Array, options: NbdReadOptions = NOTHING): Promise<void> {
    const { length } = target;
    this.#check(offset, length, this.maximumPayload);
    const { signal, dontFragment = false } = options;
    if (dontFragment) this.#require(this.canDontFragment, 'promise to send a read in one piece');
    if (length === 0) return;
    const flags = dontFragment ? CommandFlag.dontFragment : 0;
    await this.#session.submit({ command: Command.read, flags, offset, length, target, signal });
  }

  async write(
    offset: number,
    source: Uint8Array,
    options: NbdWriteOptions = NOTHING,
  ): Promise<void> {
    const { length } = source;
    this.#check(offset, length, this.maximumPayload);
    this.#require(!this.readOnly, 'write to it: it is read-only');
    if (length === 0) return;
    const { signal } = options;
    const flags = this.#fua(options) | (this.extended ? CommandFlag.payloadLength : 0);
    await this.#session.submit({ command: Command.write, flags, offset, length, source, signal });
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: NbdZeroOptions = NOTHING,
  ): Promise<void> {
    this.#check(offset, length);
    this.#require(this.canWriteZeroes, 'write zeroes without sending them');
    const { unmap = true, fast = false, signal } = options;
    if (fast) this.#require(this.canFastZero, 'tell whether zeroing would be slow');
    let flags = this.#fua(options);
    if (!unmap) flags |= CommandFlag.noHole;
    if (fast) flags |= CommandFlag.fastZero;
    await this.#pieces(Command.writeZeroes, flags, { offset, length, signal });
  }

  async trim(offset: number, length: number, options: NbdWriteOptions = NOTHING): Promise<void> {
    this.#check(offset, length);
    this.#require(this.canTrim, 'discard');
    const { signal } = options;
    await this.#pieces(Command.trim, this.#fua(options), { offset, length, signal });
  }

  async cache(offset: number, length: number, options: NbdRequestOptions = NOTHING): Promise<void> {
    this.#check(offset, length);
    this.#require(this.canCache, 'read ahead');
    await this.#pieces(Command.cache, 0, { offset, length, signal: options.signal });
  }

  async flush({ signal }: NbdRequestOptions = NOTHING): Promise<void> {
    this.#check(0, 0);
    this.#require(this.canFlush, 'flush');
    await this.#session.submit({ command: Command.flush, flags: 0, offset: 0, length: 0, signal });
  }

  async blockStatus(
    offset: number,
    length: number,
    contexts: readonly string[],
    options: NbdStatusOptions = NOTHING,
  ): Promise<ExtentList[]> {
    this.#check(offset, length);
    if (length === 0) throw new RangeError('the status of 0 bytes cannot be asked');
    const ids = this.#granted.idsOf(contexts);
    if (ids.length === 0) return [];
    const asked = Math.min(length, this.maximumLength);
    const request = {
      command: Command.blockStatus,
      flags: options.one ? CommandFlag.requestOne : 0,
      offset,
      length: asked,
      contexts: ids,
      statusPayload: this.#granted.payload(ids, asked),
      signal: options.signal,
    };
    const lists = await this.#session.submit(request);
    return this.#granted.pick(lists, contexts, request);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#inPieces);
    await this.#disconnect();
    const stopWaiting = afterWaiting(GOODBYE_MS, () => this.#destroy());
    await this.#transport.ended;
    stopWaiting();
  }

  /** When all is answered, says goodbye: once, for the caller or because the server is going away. */
  #disconnect(): Promise<void> {
    this.#disconnecting ??= this.#sayGoodbye();
    return this.#disconnecting;
  }

  async #sayGoodbye(): Promise<void> {
    await this.#session.drain();
    if (!this.#session.alive) return;
    this.#session.sendDisconnect();
    this.#transport.end();
  }

  #destroy(): void {
    this.#transport.destroy(disconnected('closed without an answer'));
  }

  /** A range without payload, in as many requests as it needs. */
  async #pieces(command: number, flags: number, range: RangeRequest): Promise<void> {
    if (range.length === 0) return;
    if (range.length <= this.maximumPayload) {
      await this.#session.submit({ command, flags, ...range });
      return;
    }
    const work = this.#oneByOne(command, flags, range);
    this.#inPieces.add(work);
    await work.finally(() => this.#inPieces.delete(work));
  }

  async #oneByOne(command: number, flags: number, range: RangeRequest): Promise<void> {
    const { signal } = range;
    const end = range.offset + range.length;
    for (let offset = range.offset; offset < end; ) {
      const length = Math.min(this.#longest(command), end - offset);
      const taken = await this.#tryLong({ command, flags, offset, length, signal });
      if (taken) offset += length;
    }
  }

  /** What is read ahead takes as much of the server's memory as what is read. */
  #longest(command: number): number {
    return command === Command.cache ? this.maximumPayload : this.#longestChange;
  }

  /**
   * False where the server takes no request of this length: "the server MAY reply with NBD_EOVERFLOW or NBD_EINVAL"
   * to one that is longer than the maximum payload. It is asked for no more than that from then on.
   */
  async #tryLong(request: RequestSpec): Promise<boolean> {
    try {
      await this.#session.submit(request);
      return true;
    } catch (error) {
      if (request.length <= this.maximumPayload || !mayBeTooLong(error)) throw error;
      this.#longestChange = this.maximumPayload;
      return false;
    }
  }

  #check(offset: number, length: number, longest = Number.MAX_SAFE_INTEGER): void {
    if (this.#closing !== undefined) {
      throw new LacunaError('ERR_DEVICE_CLOSED', `${this.name}: the connection is closed`, {
        device: this.name,
      });
    }
    checkRange({ offset, length }, this, longest);
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
}

/** A server says so of a request that is too long for it, and of others that it does not like. */
function mayBeTooLong(error: unknown): boolean {
  if (!(error instanceof LacunaError) || error.code !== 'ERR_NBD_REMOTE') return false;
  return error.errno === 'EOVERFLOW' || error.errno === 'EINVAL';
}

/** @throws TypeError for a name that cannot be sent, before the server is bothered with it. */
function checkNames(exportName: string, contexts: readonly string[] = []): void {
  encodeText(exportName, 'the export name');
  for (const context of contexts) encodeText(context, 'a context name');
}
