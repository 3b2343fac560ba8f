/**
 * The transmission phase: requests out, replies in, in any order and any number at a time. It knows no
 * socket: bytes come through ByteSink and leave through a Sender, and `destroy` ends the connection.
 *
 * Calls go one way: the session asks the parser which reply is complete, and settles the request; the parser looks
 * into the table and fills the request; neither of them calls the session.
 *
 * A promise is settled exactly once, and not before the caller's memory is free: for a read, no late
 * byte lands in its target; for a write, Node holds no part of its source.
 */
import { abortedError, LacunaError } from '../../../errors/index.js';
import { afterWaiting, Watchdog } from '../../../util/index.js';
import type { ByteSink, Sender } from '../../stream/index.js';
import { type Asked, Command, CommandFlag } from '../../wire/index.js';
import { describeRequest, disconnected, locate } from '../failures/index.js';
import type { PendingRequest, RequestResult, RequestSpec } from './pending-request.js';
import { ReplyParser, type ReplyRules } from './reply-parser.js';
import { RequestOutbox } from './request-outbox.js';
import { RequestTable } from './request-table.js';

export interface SessionOptions extends ReplyRules {
  /** How messages name the export. */
  readonly name: string;
  /** No progress for so long, with a request pending, ends the connection; 0 waits for ever. */
  readonly requestTimeoutMs: number;
  /** The server announced that it is going away (ESHUTDOWN); called once. */
  readonly onShuttingDown?: () => void;
}

/** The connection, as far as a session uses it. */
export interface Connection extends Sender {
  /** Ends the connection at once; the session then hears of it through `closed`. */
  destroy(failure: LacunaError): void;
}

/** A caller that gave up waits so long for a peer that stalls in the middle of its bytes. */
const GIVE_UP_MS = 1000;

export class Session implements ByteSink {
  readonly #connection: Connection;
  readonly #options: SessionOptions;
  readonly #table = new RequestTable();
  readonly #parser: ReplyParser;
  readonly #outbox: RequestOutbox;
  readonly #watchdog: Watchdog;
  #failure: LacunaError | undefined;
  #shuttingDown = false;
  #drained: Promise<void> | undefined;
  #onDrained: (() => void) | undefined;
  #stopWaiting: (() => void) | undefined;

  constructor(connection: Connection, options: SessionOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#outbox = new RequestOutbox(connection, options.extended);
    this.#parser = new ReplyParser(this.#table, options);
    this.#watchdog = new Watchdog(options.requestTimeoutMs, () => this.#expired());
  }

  /** Whether the server announced that it is going away (ESHUTDOWN). */
  get shuttingDown(): boolean {
    return this.#shuttingDown;
  }

  /** Requests whose reply is not complete. */
  get pending(): number {
    return this.#failure === undefined ? this.#table.count : 0;
  }

  /** Whether requests can be sent, as far as is known. */
  get alive(): boolean {
    return this.#failure === undefined;
  }

  async submit(spec: RequestSpec): Promise<RequestResult> {
    if (spec.signal?.aborted) throw abortedError(spec.signal);
    if (this.#shuttingDown) {
      throw this.#located(disconnected('the server is shutting down; connect anew'), spec);
    }
    if (this.#failure !== undefined) throw this.#located(this.#failure, spec);
    const request = this.#table.take() ?? this.#newSlot();
    const promise = request.begin(spec);
    this.#table.sent(request);
    this.#watchdog.watch();
    if (spec.statusPayload === undefined) {
      this.#outbox.push(request, spec.source, request.onSent);
    } else {
      this.#pushStatus(request, spec.statusPayload);
    }
    return promise;
  }

  #newSlot(): PendingRequest {
    const request = this.#table.grow();
    request.onAbort = () => this.#aborted(request);
    request.onSent = () => this.#sent(request);
    return request;
  }

  /** A status request whose length and contexts stand in a payload; it is ours, so nobody waits for it. */
  #pushStatus(request: PendingRequest, payload: Uint8Array): void {
    const { command, cookieHigh, cookieLow, offset } = request;
    const flags = request.flags | CommandFlag.payloadLength;
    const header = { command, flags, cookieHigh, cookieLow, offset, length: payload.length };
    this.#outbox.push(header, payload, () => {});
  }

  /**
   * Resolves when nothing is pending, at once if nothing is. Replies that only callers who gave up
   * would have wanted are waited for only shortly. For when no more requests come.
   */
  drain(): Promise<void> {
    this.#drained ??= new Promise((resolve) => {
      this.#onDrained = resolve;
      this.#checkDrained();
    });
    return this.#drained;
  }

  /** Says goodbye. The server may close without answering what is pending, so be idle first. */
  sendDisconnect(): void {
    const nothing = { flags: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
    this.#outbox.push({ ...nothing, command: Command.disconnect });
    this.#outbox.flush();
  }

  buffer(): Uint8Array {
    return this.#parser.buffer();
  }

  received(count: number): void {
    this.#watchdog.progress();
    const lent = this.#parser.filled(count);
    if (lent?.giveUp) this.#abort(lent);
    for (let request = this.#parser.next(); request; request = this.#parser.next()) {
      this.#replied(request);
    }
  }

  /** Fails all that is pending. The socket is closed already, so no memory is lent out any more. */
  closed(failure: LacunaError): void {
    this.#failure = failure;
    this.#watchdog.stop();
    for (const request of this.#table) {
      if (request.settled) continue;
      if (request.giveUp) request.abort();
      else request.reject(this.#located(failure, request));
    }
    this.#stopWaiting?.();
    this.#onDrained?.();
  }

  /** The signal fired while the request is under way. */
  #aborted(request: PendingRequest): void {
    if (!request.receiving && request.released) {
      this.#abort(request);
      return;
    }
    request.giveUp = true;
    const use = request.cookieHigh;
    const stalled = () => {
      if (request.cookieHigh !== use || request.settled) return;
      const what = describeRequest(request);
      this.#connection.destroy(disconnected(`the peer stalled while asked to ${what}`));
    };
    afterWaiting(GIVE_UP_MS, stalled, { keepsProcess: false });
  }

  /** Node holds the bytes of a write no longer. */
  #sent(request: PendingRequest): void {
    request.released = true;
    if (this.#failure !== undefined) return;
    this.#watchdog.progress();
    if (request.giveUp) this.#abort(request);
    if (request.replied) this.#finish(request);
  }

  #replied(request: PendingRequest): void {
    this.#table.replied(request);
    if (request.failure?.errno === 'ESHUTDOWN') this.#announced();
    if (request.released) this.#finish(request);
  }

  #announced(): void {
    if (this.#shuttingDown) return;
    this.#shuttingDown = true;
    this.#options.onShuttingDown?.();
  }

  #finish(request: PendingRequest): void {
    if (request.failure === undefined) request.resolve();
    else request.reject(this.#located(request.failure, request));
    this.#table.free(request);
    if (this.#table.count === 0) this.#watchdog.stop();
    this.#checkDrained();
  }

  #abort(request: PendingRequest): void {
    request.abort();
    this.#checkDrained();
  }

  #checkDrained(): void {
    if (this.#onDrained === undefined) return;
    if (this.pending === 0) {
      this.#stopWaiting?.();
      this.#onDrained();
      return;
    }
    for (const request of this.#table) if (!request.settled) return;
    this.#stopWaiting ??= afterWaiting(GIVE_UP_MS, () => {
      this.#connection.destroy(disconnected('closed before the server answered'));
    });
  }

  #expired(): void {
    const seconds = this.#options.requestTimeoutMs / 1000;
    this.#connection.destroy(
      new LacunaError('ERR_TIMEOUT', `the server made no progress for ${seconds} s`, {
        retryable: true,
      }),
    );
  }

  #located(failure: LacunaError, { command, offset, length }: Asked): LacunaError {
    const range = command === Command.flush ? undefined : { offset, length };
    return locate(failure, this.#options.name, range);
  }
}
