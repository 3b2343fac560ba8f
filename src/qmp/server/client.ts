import { once } from 'node:events';
import type { Socket } from 'node:net';
import { LacunaError } from '../../errors/index.js';
import { answerText, errorText, type JsonObject, JsonStream, parseJson } from '../wire/index.js';
import { QmpCommandError } from './command-error.js';
import { negotiate, type QmpRequest, requestOf } from './request.js';

/** What the server does for a client. */
export interface ClientHost {
  /** Carries out a command. @throws what the command throws */
  execute(request: QmpRequest): unknown;
  /** The client has so many bytes in memory of an object that is not whole yet. @returns whether there is room for them */
  holds(bytes: number): boolean;
  /** The client is gone; where it was hung up on, why. */
  closed(failure: LacunaError | undefined): void;
}

export interface ClientLimits {
  readonly messageBytes: number;
  readonly backlogBytes: number;
}

/** As in QEMU. */
const MOST_DEPTH = 1024;
const MOST_TOKENS = 2 ** 21;

/** What came from a client: an object, or what is to be said of something that is none. */
type Received = { readonly object: JsonObject } | { readonly broken: string };

/** One client: its commands are carried out and answered one after another, in their order. */
export class QmpServerClient {
  readonly #socket: Socket;
  readonly #host: ClientHost;
  readonly #limits: ClientLimits;
  readonly #stream: JsonStream;
  readonly #waiting: Received[] = [];
  /** Of an answer that is still being sent: it may be longer than all events that may wait. */
  #answerBytes = 0;
  #isNegotiated = false;
  #isWorking = false;
  #hasEnded = false;
  #failure: LacunaError | undefined;

  constructor(socket: Socket, host: ClientHost, limits: ClientLimits, greeting: string) {
    this.#socket = socket;
    this.#host = host;
    this.#limits = limits;
    const { messageBytes } = limits;
    this.#stream = new JsonStream(
      {
        object: (object) => this.#waiting.push({ object }),
        broken: (what) => this.#waiting.push({ broken: what }),
        parse: parseJson,
      },
      { maximumBytes: messageBytes, maximumDepth: MOST_DEPTH, maximumTokens: MOST_TOKENS },
    );
    socket.on('data', (bytes) => this.#received(bytes));
    socket.on('end', () => this.end());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => host.closed(this.#failure));
    socket.write(greeting);
  }

  /** Tells it of an event, if it has agreed on capabilities. */
  tell(event: string): void {
    if (this.#isNegotiated && !this.#hasEnded) this.#send(event);
  }

  /** Answers what it has sent, and ends the connection then. */
  end(): void {
    this.#hasEnded = true;
    if (!this.#isWorking) this.#socket.destroySoon();
  }

  /** The same, without what has not begun. */
  shutdown(): void {
    this.#waiting.length = 0;
    this.end();
  }

  /** Ends the connection at once. */
  hangUp(failure: LacunaError): void {
    this.#failure ??= failure;
    this.#waiting.length = 0;
    this.#hasEnded = true;
    this.#socket.destroy();
  }

  #received(bytes: Buffer): void {
    if (this.#hasEnded) return;
    this.#stream.push(bytes);
    if (!this.#host.holds(this.#stream.keptBytes)) {
      this.hangUp(refusal('the clients have too much begun, and not sent to its end'));
      return;
    }
    if (this.#waiting.length > 0 && !this.#isWorking) void this.#work();
  }

  /** Nothing is read meanwhile, so that no more waits here than came at once. */
  async #work(): Promise<void> {
    this.#isWorking = true;
    this.#socket.pause();
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const answer = await this.#answerTo(next);
      this.#send(answer);
      if (!this.#socket.writableNeedDrain) continue;
      this.#answerBytes = Buffer.byteLength(answer);
      await this.#drained();
      this.#answerBytes = 0;
    }
    this.#isWorking = false;
    if (this.#hasEnded) this.#socket.destroySoon();
    else this.#socket.resume();
  }

  async #answerTo(received: Received): Promise<string> {
    if ('broken' in received) {
      return errorText('GenericError', `JSON parse error, ${received.broken}`, undefined);
    }
    const { object } = received;
    const id = Object.hasOwn(object, 'id') ? object.id : undefined;
    try {
      return answerText((await this.#execute(object)) ?? {}, id);
    } catch (error) {
      const errorClass = error instanceof QmpCommandError ? error.errorClass : 'GenericError';
      return errorText(errorClass, error instanceof Error ? error.message : String(error), id);
    }
  }

  #execute(object: JsonObject): unknown {
    const request = requestOf(object);
    if (this.#isNegotiated) return this.#host.execute(request);
    negotiate(request);
    this.#isNegotiated = true;
    return undefined;
  }

  #send(text: string): void {
    const { backlogBytes } = this.#limits;
    if (this.#socket.destroyed) return;
    if (this.#socket.writableLength > backlogBytes + this.#answerBytes) {
      const waiting = `more than ${backlogBytes} bytes wait for it`;
      this.hangUp(refusal(`a client does not read what it is sent: ${waiting}`));
      return;
    }
    this.#socket.write(text);
  }

  async #drained(): Promise<void> {
    const stop = new AbortController();
    const { signal } = stop;
    const ways = ['drain', 'close'].map((event) => once(this.#socket, event, { signal }));
    await Promise.race(ways).catch(nothing);
    stop.abort();
    await Promise.allSettled(ways);
  }
}

function refusal(why: string): LacunaError {
  return new LacunaError('ERR_QMP_DISCONNECTED', `a client was hung up on: ${why}`);
}

function nothing(): void {}
