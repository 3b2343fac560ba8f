import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { LacunaError } from '../../errors/index.js';
import type { NbdServerAddress } from '../uri.js';
import type { ByteSink } from './byte-sink.js';
import { disconnected } from './failures.js';

/** Given to the socket when nobody listens any more. */
const nowhere = new Uint8Array(1024);

/**
 * A socket that delivers into the memory that its sink names. All that can go wrong with it ends in one
 * call of the sink's `closed`; nothing is thrown into Node's callbacks.
 */
export class Transport {
  /** Who receives; may be exchanged between two deliveries. */
  sink: ByteSink;
  readonly #socket: Socket;
  #failure: LacunaError | undefined;
  #connected = false;
  #ended: () => void = () => {};
  /** Resolves when the socket is closed for good. */
  readonly ended = new Promise<void>((resolve) => {
    this.#ended = resolve;
  });

  constructor(server: NbdServerAddress, sink: ByteSink) {
    this.sink = sink;
    const onread = {
      buffer: () => this.#buffer(),
      callback: (count: number) => this.#received(count),
    };
    const common = { onread, keepAlive: true };
    const address: NetConnectOpts =
      server.type === 'unix'
        ? { ...common, path: server.path }
        : { ...common, host: server.host, port: server.port, noDelay: true };
    this.#socket = connect(address);
    this.#socket.on('error', (cause) => this.destroy(disconnected(this.#explain(cause), cause)));
    this.#socket.on('connect', () => {
      this.#connected = true;
    });
    this.#socket.on('end', () => this.destroy(disconnected('the server closed the connection')));
    this.#socket.on('close', () => {
      this.destroy(disconnected('the connection was closed'));
      this.#ended();
    });
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  write(bytes: Uint8Array, sent: (error?: Error | null) => void): void {
    this.#socket.write(bytes, sent);
  }

  /** Sends what is queued, then closes; the peer is expected to close too. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once: when this returns, the socket touches no memory of its users any more. */
  destroy(failure: LacunaError): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#socket.destroy();
    this.sink.closed(failure);
  }

  #explain(cause: Error): string {
    const reason = reasonOf(cause);
    if (this.#connected) return `the connection was lost (${reason})`;
    return `cannot connect (${reason}); is the server running?`;
  }

  #buffer(): Uint8Array {
    return this.#failure === undefined ? this.sink.buffer() : nowhere;
  }

  #received(count: number): boolean {
    if (this.#failure !== undefined) return false;
    try {
      this.sink.received(count);
    } catch (error) {
      this.destroy(error as LacunaError);
    }
    return true;
  }
}

/** Node joins several addresses' errors into one without a message of its own. */
function reasonOf(cause: Error): string {
  const causes = cause instanceof AggregateError ? cause.errors : [cause];
  return causes.map((one) => (one instanceof Error ? one.message : String(one))).join('; ');
}
