import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { LacunaError } from '../../../errors/index.js';
import type { NbdServerAddress } from '../../address/index.js';
import type { ByteSink } from '../../stream/index.js';
import { disconnected } from '../failures/index.js';
import { explainTls, type Securer } from './secure-socket.js';

/** Given to the socket when nobody listens any more. */
const nowhere = new Uint8Array(1024);

/** How far a connection has come, for what an error means. */
type Stage = 'connecting' | 'plain' | 'securing' | 'secured' | 'used';

/**
 * A socket that delivers into the memory that its sink names. All that can go wrong with it ends in one
 * call of the sink's `closed`; nothing is thrown into Node's callbacks.
 *
 * In plain the kernel writes straight into that memory. TLS brings its own: Node ignores `onread` on a
 * socket that goes over to TLS later, and one copy more costs little beside decrypting.
 */
export class Transport {
  /** Who receives; may be exchanged between two deliveries. */
  sink: ByteSink;
  readonly #securer: Securer | undefined;
  #socket: Socket;
  #stage: Stage = 'connecting';
  #failure: LacunaError | undefined;
  #ended: () => void = () => {};
  /** Resolves when the socket is closed for good. */
  readonly ended = new Promise<void>((resolve) => {
    this.#ended = resolve;
  });

  /** With a securer the connection can go over to TLS, and is received the way that TLS is. */
  constructor(server: NbdServerAddress, sink: ByteSink, securer?: Securer) {
    this.sink = sink;
    this.#securer = securer;
    const onread = {
      buffer: () => this.#buffer(),
      callback: (count: number) => this.#received(count),
    };
    const common = { ...(securer === undefined && { onread }), keepAlive: true };
    const address: NetConnectOpts =
      server.type === 'unix'
        ? { ...common, path: server.path }
        : { ...common, host: server.host, port: server.port, noDelay: true };
    this.#socket = connect(address);
    this.#listen(this.#socket);
    if (securer !== undefined) this.#socket.on('data', this.#pour);
    this.#socket.on('connect', () => {
      this.#stage = 'plain';
    });
    this.#socket.on('close', () => this.#ended());
  }

  /** Goes over to TLS; `done` is called when it stands and nothing was received meanwhile. */
  secure(done: () => void): void {
    const plain = this.#socket;
    // From here on it is TLS that reads the socket. What this delivery still holds goes to the sink.
    plain.off('data', this.#pour);
    this.#stage = 'securing';
    const secured = this.#securer!(plain);
    this.#socket = secured;
    this.#listen(secured);
    secured.once('secureConnect', () => {
      if (this.#failure !== undefined) return;
      this.#stage = 'secured';
      secured.on('data', this.#pour);
      done();
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

  #listen(socket: Socket): void {
    socket.on('error', (cause) => this.destroy(this.#explain(cause)));
    socket.on('end', () => this.destroy(disconnected(this.#whyEnded())));
    socket.on('close', () => this.destroy(disconnected('the connection was closed')));
  }

  #explain(cause: Error): LacunaError {
    // With TLS 1.3 the server looks at our certificate only after we are done.
    if (this.#stage === 'securing' || this.#stage === 'secured') return explainTls(cause);
    const reason = reasonOf(cause);
    if (this.#stage !== 'connecting') {
      return disconnected(`the connection was lost (${reason})`, cause);
    }
    return disconnected(`cannot connect (${reason}); ${adviceFor(cause)}`, cause);
  }

  /** A server may end TLS without telling why; ours is then the side that knows what was shown. */
  #whyEnded(): string {
    const isFresh = this.#stage === 'securing' || this.#stage === 'secured';
    const guess = isFresh ? ' over TLS; it may not accept the key or certificate' : '';
    return `the server closed the connection${guess}`;
  }

  #buffer(): Uint8Array {
    return this.#failure === undefined ? this.sink.buffer() : nowhere;
  }

  #received(count: number): boolean {
    if (this.#failure !== undefined) return false;
    if (this.#stage === 'secured') this.#stage = 'used';
    try {
      this.sink.received(count);
    } catch (error) {
      this.destroy(error as LacunaError);
    }
    return true;
  }

  /** Hands out what lies in Node's memory, piece by piece as the sink asks for it. */
  readonly #pour = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length && this.#failure === undefined; ) {
      const room = this.sink.buffer();
      const end = Math.min(at + room.length, bytes.length);
      room.set(bytes.subarray(at, end));
      this.#received(end - at);
      at = end;
    }
  };
}

const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'you may not connect to that socket: look at its mode and at its folders',
  EAI_AGAIN: 'the name could not be looked up: say an address, or try again',
  EHOSTUNREACH: 'no way leads to that machine: look at the address and at the network',
  ENETUNREACH: 'no way leads to that machine: look at the address and at the network',
  ENOENT: 'nothing is at that path: is the server running, and is the path right?',
  ENOTFOUND: 'no machine has that name: check it, or say an address',
  EPERM: 'this machine forbids it: look at its firewall',
  ETIMEDOUT: 'the machine does not answer: look at the address and at firewalls',
};

function adviceFor(cause: Error & { code?: string }): string {
  return ADVICE[cause.code ?? ''] ?? 'is the server running?';
}

/** Node joins several addresses' errors into one without a message of its own. */
function reasonOf(cause: Error): string {
  const causes = cause instanceof AggregateError ? cause.errors : [cause];
  return causes.map((one) => (one instanceof Error ? one.message : String(one))).join('; ');
}
