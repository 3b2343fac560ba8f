import { connect, type Socket } from 'node:net';
import { abortedError, LacunaError } from '../../errors/index.js';
import { afterWaiting, onAbort } from '../../util/index.js';
import { type JsonObject, JsonStream, protocolError } from '../wire/index.js';
import type { QmpAddress } from './address.js';
import { disconnected } from './failures.js';

export interface LinkEvents {
  /** The peer has sent an object. What it throws ends the connection. */
  object(value: JsonObject): void;
  /** See `JsonStream`. */
  delimiter?(): void;
  /** Called once, when the connection has ended for whatever reason; nothing comes behind it. */
  closed(failure: LacunaError): void;
}

export interface LinkOptions {
  /** Milliseconds for connecting. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** A socket over which JSON objects go both ways. All that can go wrong with it ends in one call of `closed`. */
export class Link {
  readonly #socket: Socket;
  readonly #events: LinkEvents;
  #failure: LacunaError | undefined;

  /** @throws LacunaError ERR_QMP_DISCONNECTED, ERR_ABORTED */
  static open(
    address: QmpAddress,
    events: LinkEvents,
    { timeoutMs, signal }: LinkOptions,
  ): Promise<Link> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortedError(signal));
        return;
      }
      const socket = connect(
        'path' in address ? { path: address.path } : { ...address, noDelay: true },
      );
      const end = (failure: LacunaError) => {
        stop();
        socket.destroy();
        reject(failure);
      };
      const abort = () => end(abortedError(signal));
      const failed = (cause: Error) =>
        end(disconnected(`cannot connect (${reasonOf(cause)})`, cause));
      const late = () =>
        end(disconnected(`it does not accept a connection within ${timeoutMs} ms`));
      const stopWaiting = afterWaiting(timeoutMs, late);
      const stop = () => {
        stopWaiting();
        signal?.removeEventListener('abort', abort);
        socket.off('error', failed);
        // A failure that comes behind has no reader any more.
        socket.on('error', () => {});
      };
      if (signal !== undefined) onAbort(signal, abort);
      socket.once('error', failed);
      socket.once('connect', () => {
        stop();
        resolve(new Link(socket, events));
      });
    });
  }

  private constructor(socket: Socket, events: LinkEvents) {
    this.#socket = socket;
    this.#events = events;
    const stream = new JsonStream(events);
    socket.on('data', (bytes) => {
      if (this.#failure !== undefined) return;
      try {
        stream.push(bytes);
      } catch (error) {
        this.destroy(asFailure(error));
      }
    });
    socket.on('error', (cause) =>
      this.destroy(disconnected(`the connection was lost (${reasonOf(cause)})`, cause)),
    );
    socket.on('close', () => this.destroy(disconnected('the peer closed the connection')));
  }

  send(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Lets the process end while the connection is open, or keeps it alive. */
  keepsProcess(keeps: boolean): void {
    if (keeps) this.#socket.ref();
    else this.#socket.unref();
  }

  /** Ends the connection at once. Harmless when it has ended. */
  destroy(failure: LacunaError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#socket.destroy();
    this.#events.closed(failure);
  }

  /** Waits until the socket is closed for good. */
  async close(failure: LacunaError): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      if (this.#socket.closed) resolve();
      else this.#socket.once('close', () => resolve());
    });
    this.destroy(failure);
    await closed;
  }
}

function asFailure(error: unknown): LacunaError {
  if (error instanceof LacunaError) return error;
  return protocolError('its bytes could not be handled', error);
}

/** Node joins several addresses' errors into one without a message of its own. */
function reasonOf(cause: Error): string {
  const causes = cause instanceof AggregateError ? cause.errors : [cause];
  return causes.map((one) => (one instanceof Error ? one.message : String(one))).join('; ');
}
