/**
 * The transmission phase of one connection. It knows no socket: bytes come through ByteSink and leave through
 * the connection, which it can pause.
 *
 * A client that sends more than it may have in flight, or that does not take its answers, is not read from
 * until it does: it waits, and nobody else does. Where the budget of all clients has not the memory for a request,
 * that is carried out alone, and in pieces.
 */
import { LacunaError } from '../../../errors/index.js';
import { counted, Watchdog } from '../../../util/index.js';
import { type ByteSink, Outbox, type Sender } from '../../stream/index.js';
import { Command, CommandFlag, EXTENDED_EXTENT_BYTES, EXTENT_BYTES } from '../../wire/index.js';
import { Holes } from '../export/index.js';
import { ended, wireErrno } from '../failures/index.js';
import type { Entered } from '../handshake/index.js';
import type { MemoryAccount, NbdServerLimits } from '../limits/index.js';
import { type BufferPool, bufferBytes } from '../limits/index.js';
import { execute, type Workplace, writePiece } from './commands.js';
import { Replies } from './replies.js';
import { ServerRequest } from './request.js';
import { type Asker, isToldOf, toldRequest } from './request-channel.js';
import { RequestParser } from './request-parser.js';
import { type RequestRules, refusalOf } from './request-rules.js';

/** The connection, as far as a session uses it. */
export interface SessionConnection extends Sender {
  pause(): void;
  resume(): void;
  /** Everything is answered: sends what is queued, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(failure: unknown): void;
}

export interface SessionOptions {
  readonly limits: NbdServerLimits;
  /** A client that neither asks nor takes its answers for so long is hung up on; 0 waits for ever. */
  readonly idleTimeoutMs: number;
  readonly pool: BufferPool;
  /** Hears of every request that a device failed. */
  readonly onDeviceError: (error: unknown) => void;
}

/** Headers and small payloads are gathered in blocks of this size. */
const BLOCK_BYTES = 128 * 1024;
/** Answers that wait for the socket: enough to keep it busy, little enough to stay in the cache. */
const MAX_UNSENT = 1024 * 1024;
/** Of those, headers and small answers, whose memory nobody counts. */
const MAX_UNSENT_SMALL = 256 * 1024;
/** Bytes of requests begun in one turn of the event loop; then other connections have theirs. */
const TURN_BYTES = 1024 * 1024;
/** A client that has said goodbye and does not take what it asked before is waited for so long. */
const FAREWELL_MS = 10_000;
/** A context's id and every other one, for a block status with a payload. */
const STATUS_PAYLOAD_BYTES = 4096;

export class ServerSession implements ByteSink {
  readonly #connection: SessionConnection;
  readonly #options: SessionOptions;
  readonly #rules: RequestRules;
  readonly #outbox: Outbox;
  readonly #parser: RequestParser;
  readonly #work: Workplace;
  readonly #account: MemoryAccount;
  readonly #asker: Asker;
  #watchdog: Watchdog;
  readonly #abort = new AbortController();
  readonly #idle: ServerRequest[] = [];
  readonly #free = (request: ServerRequest) => this.#finish(request);
  #inFlight = 0;
  #bytes = 0;
  #turnBytes = 0;
  /** A request is carried out in pieces: no other begins meanwhile. */
  #inPieces = false;
  #turn: NodeJS.Immediate | undefined;
  #advancing = false;
  /** No more requests are taken; the connection ends when all is answered. */
  #closing = false;
  #ended = false;

  /**
   * @param account the memory that it may hold; its place is given back when the connection is gone
   * @param client its number, for those who watch
   */
  constructor(
    connection: SessionConnection,
    entered: Entered,
    options: SessionOptions,
    account: MemoryAccount,
    client = 0,
  ) {
    const { export: served, structured, extended, contexts } = entered;
    const { limits } = options;
    this.#connection = connection;
    this.#account = account;
    this.#asker = { export: served.name, device: served.device, client };
    this.#options = options;
    this.#rules = {
      size: served.size,
      flags: served.flags(structured || extended, extended),
      maxPayload: limits.maxPayload,
      extended,
      contextCount: contexts.length,
    };
    this.#outbox = new Outbox(connection, BLOCK_BYTES, () => this.#sent());
    this.#work = {
      served,
      replies: new Replies(this.#outbox, { structured, extended }),
      structured: structured || extended,
      contexts,
      holes: served.tellsHoles ? new Holes(served.device) : undefined,
      signal: this.#abort.signal,
    };
    this.#watchdog = this.#watch(options.idleTimeoutMs);
    this.#parser = new RequestParser(
      {
        blank: () => this.#idle.pop() ?? new ServerRequest(this.#free),
        admit: (request) => this.#admit(request),
        emptied: (request) => this.#emptied(request),
        arrived: (request) => this.#arrived(request),
      },
      extended,
    );
  }

  buffer(): Uint8Array {
    return this.#parser.buffer();
  }

  received(count: number): void {
    this.#watchdog.progress();
    this.#run(() => this.#parser.received(count));
    if (this.#parser.stalled) this.#connection.pause();
  }

  /** The connection is gone; what is in flight is finished, and answered to nobody. */
  closed(): void {
    this.#ended = true;
    this.#watchdog.stop();
    this.#parser.end()?.release();
    clearImmediate(this.#turn);
    this.#abort.abort();
    this.#account.close();
  }

  /** Answers what has arrived, then ends the connection. */
  shutdown(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#options.idleTimeoutMs === 0) this.#watchdog = this.#watch(FAREWELL_MS);
    this.#connection.pause();
    this.#checkDrained();
  }

  /** Room for one more request; it always has room alone. */
  #admit(request: ServerRequest): boolean {
    if (request.cost < 0) this.#assess(request);
    const { maxRequests, maxBytes } = this.#options.limits;
    const isAlone = this.#inFlight === 0;
    const room =
      isAlone || (this.#inFlight < maxRequests && this.#bytes + request.cost <= maxBytes);
    if (!room || this.#inPieces || this.#turnBytes >= TURN_BYTES || this.#isClogged) return false;
    if (!this.#account.take(request.memory)) {
      if (!isAlone) return false;
      this.#divide(request);
    }
    this.#inFlight++;
    this.#bytes += request.cost;
    this.#turnBytes += request.cost;
    this.#turn ??= setImmediate(() => this.#endTurn());
    const size = Math.min(memoryOf(request), request.memory);
    request.buffer = size > 0 ? this.#options.pool.take(size) : undefined;
    request.hold();
    return true;
  }

  /** The socket has not taken what it was given before. */
  get #isClogged(): boolean {
    return this.#outbox.unsent >= MAX_UNSENT || this.#outbox.unsentSmall >= MAX_UNSENT_SMALL;
  }

  #assess(request: ServerRequest): void {
    request.refusal = refusalOf(request, this.#rules);
    request.cost = memoryOf(request);
    request.memory = request.cost === 0 ? 0 : bufferBytes(request.cost);
    const isStatus = request.command === Command.blockStatus && request.refusal === undefined;
    if (!isStatus) return;
    // What the longest answer would take; it is known only when it is there.
    request.maxExtents =
      (request.flags & CommandFlag.requestOne) !== 0 ? 1 : this.#options.limits.maxExtents;
    const answer = request.maxExtents * this.#extentBytes;
    request.cost += answer;
    request.memory += answer;
  }

  /** Bytes of one extent in each context. */
  get #extentBytes(): number {
    return (
      (this.#rules.extended ? EXTENDED_EXTENT_BYTES : EXTENT_BYTES) * this.#work.contexts.length
    );
  }

  /** Makes do with the memory that this client always has. */
  #divide(request: ServerRequest): void {
    request.inPieces = true;
    this.#inPieces = true;
    request.memory = this.#account.ownBytes;
    this.#account.take(request.memory);
    if (request.command !== Command.blockStatus) return;
    const left = request.memory - STATUS_PAYLOAD_BYTES;
    request.maxExtents = Math.max(1, Math.floor(left / this.#extentBytes));
  }

  /** Writes what is in the buffer of a payload that goes on; true once that is done. */
  #emptied(request: ServerRequest): boolean {
    if (request.emptied) {
      request.emptied = false;
      return true;
    }
    if (request.emptying) return false;
    request.emptying = true;
    request.hold();
    new Promise<void>((resolve) => resolve(writePiece(request, this.#work.served.device)))
      .catch((error) => {
        request.failure ??= error;
      })
      .then(() => {
        request.emptying = false;
        request.emptied = true;
        request.release();
        this.#progress();
      });
    return false;
  }

  #arrived(request: ServerRequest): void {
    if (request.command === Command.disconnect) {
      this.#parser.stop();
      request.release();
      this.shutdown();
      return;
    }
    const tell = isToldOf() ? toldRequest(this.#asker, request) : undefined;
    if (request.refusal !== undefined) {
      const { errno, text } = request.refusal;
      this.#work.replies.fail(request, errno, text);
      tell?.(errno);
      request.release();
      return;
    }
    // A device that throws instead of rejecting must not take the server with it.
    const work = new Promise<void>((resolve) => resolve(execute(request, this.#work)));
    if (tell !== undefined)
      work.then(
        () => tell(),
        (error) => tell(wireErrno(error)),
      );
    work.catch((error) => this.#failed(request, error)).then(request.release);
  }

  #failed(request: ServerRequest, error: unknown): void {
    if (this.#ended) return;
    this.#options.onDeviceError(error);
    if (request.answering) {
      this.#connection.destroy(ended('a read failed whose answer had begun', error));
      return;
    }
    const errno = wireErrno(error);
    const { command, offset, length } = request;
    // The device's own message may tell a stranger where its file lies.
    const text = `command ${command} failed on ${counted(length, 'byte')} at ${offset}: ${errno}`;
    this.#work.replies.fail(request, errno, text);
  }

  #finish(request: ServerRequest): void {
    this.#inFlight--;
    this.#bytes -= request.cost;
    if (request.buffer !== undefined) this.#options.pool.free(request.buffer);
    this.#account.free(request.memory);
    if (request.inPieces) this.#inPieces = false;
    request.reset();
    this.#idle.push(request);
    this.#progress();
  }

  #sent(): void {
    this.#watchdog.progress();
    this.#progress();
  }

  /** Whether a request that has arrived in full is being carried out or answered. */
  get #working(): boolean {
    return this.#inFlight > (this.#parser.receiving ? 1 : 0);
  }

  #watch(limitMs: number): Watchdog {
    const watchdog = new Watchdog(limitMs, () => this.#idled(limitMs));
    watchdog.watch();
    return watchdog;
  }

  /** While the device works it is not the client who is slow. */
  #idled(limitMs: number): void {
    if (this.#working && this.#outbox.unsent === 0) {
      this.#watchdog.watch();
      return;
    }
    const seconds = limitMs / 1000;
    this.#connection.destroy(
      new LacunaError('ERR_TIMEOUT', `the client neither asked nor took anything for ${seconds} s`),
    );
  }

  /** Something that a request may have waited for has happened. */
  #progress(): void {
    if (this.#ended) return;
    if (this.#parser.stalled && !this.#advancing) {
      this.#run(() => this.#parser.advance());
      if (!this.#parser.stalled && !this.#closing) this.#connection.resume();
    }
    this.#checkDrained();
  }

  #endTurn(): void {
    this.#turn = undefined;
    this.#turnBytes = 0;
    this.#progress();
  }

  #run(step: () => void): void {
    this.#advancing = true;
    try {
      step();
    } catch (failure) {
      this.#connection.destroy(failure);
    } finally {
      this.#advancing = false;
    }
  }

  #checkDrained(): void {
    if (!this.#closing || this.#ended || this.#advancing) return;
    // A payload that has not arrived in full will not: nothing is read any more.
    if (this.#working || this.#parser.stalled) return;
    this.#ended = true;
    this.#outbox.flush();
    this.#connection.end();
  }
}

/** What tells how much memory a request needs. */
type Assessed = Pick<ServerRequest, 'command' | 'length' | 'payloadLength' | 'refusal'>;

/** Memory of the pool that a request needs, from the moment on when it is admitted. */
function memoryOf({ command, length, payloadLength, refusal }: Assessed): number {
  if (refusal !== undefined) return 0;
  if (command === Command.blockStatus)
    return payloadLength <= STATUS_PAYLOAD_BYTES ? payloadLength : 0;
  const carries =
    command === Command.read || command === Command.write || command === Command.cache;
  return carries ? length : 0;
}
