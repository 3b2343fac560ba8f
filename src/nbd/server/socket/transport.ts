import { type OnReadOpts, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { LacunaError } from '../../../errors/index.js';
import { afterWaiting } from '../../../util/index.js';
import type { ByteSink } from '../../stream/index.js';
import { ended } from '../failures/index.js';
import { enlargeSendBuffer } from './send-buffer.js';
import { takeHandle } from './socket-handle.js';

/** A client that was sent everything and does not close is waited for so long. */
const LINGER_MS = 1000;

/** Given to the socket when nobody listens any more. */
const nowhere = new Uint8Array(64 * 1024);

const deaf: ByteSink = { buffer: () => nowhere, received() {}, closed() {} };

/**
 * An accepted socket that delivers into the memory that its sink names. All that can go wrong with it ends in one
 * call of the sink's `closed`; nothing is thrown into Node's callbacks.
 *
 * Node gives `onread` to sockets that connect, not to those that are accepted; so the handle moves into a socket
 * that is made anew. In TLS it is not to be had at all, and bytes are copied.
 */
export class ServerTransport {
  /** Who receives; may be exchanged between two deliveries. */
  sink: ByteSink;
  /** Called when the client will send nothing more; what it asked is still answered. */
  onEnd: () => void = () => this.destroy(ended('the client closed the connection'));
  readonly #onClosed: () => void;
  #socket: Duplex;
  #failure: unknown;
  #isDestroyed = false;
  #stopLingering: () => void = nothing;

  /** @param accepted must not have read anything: its server has `pauseOnConnect` */
  constructor(accepted: Socket, sink: ByteSink, onClosed: () => void) {
    this.sink = sink;
    this.#onClosed = onClosed;
    this.#socket = this.#adopt(accepted);
    this.#listen(this.#socket);
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  /** Bytes that the system has not taken. */
  get unsent(): number {
    return this.#socket.writableLength;
  }

  write(bytes: Uint8Array, sent: () => void = nothing): void {
    this.#socket.write(bytes, sent);
  }

  /** Nothing is read until {@link resume}: the client has to wait. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#isDestroyed) this.#socket.resume();
  }

  /** Calls back when what is queued was sent. */
  whenSent(then: () => void): void {
    this.#socket.once('drain', then);
  }

  /** Hands the socket to TLS, which gives another one back through {@link secured}; nothing more was read. */
  async release(): Promise<Duplex> {
    this.sink = deaf;
    this.#socket.pause();
    // Not from within the delivery of the bytes before: Node is still busy with the handle.
    await setImmediate();
    return this.#socket;
  }

  /** Goes on in TLS. */
  secured(socket: Duplex, sink: ByteSink): void {
    this.sink = sink;
    this.#socket = socket;
    this.#listen(socket);
    socket.on('data', (bytes: Uint8Array) => this.#copy(socket, bytes));
  }

  /**
   * Sends what is queued, then closes. What the client still sends is taken and dropped, because a socket that is
   * closed over unread bytes may lose the answers that are on their way.
   */
  end(): void {
    const { sink } = this;
    this.sink = { ...deaf, closed: (failure) => sink.closed(failure) };
    this.onEnd = () => this.destroy(ended('both sides are done'));
    this.#socket.end(() => {
      if (this.#isDestroyed) return;
      const stays = () => this.destroy(ended('the client does not close'));
      this.#stopLingering = afterWaiting(LINGER_MS, stays);
    });
    this.resume();
  }

  /** Closes at once: when this returns, the socket touches no memory of its users any more. */
  destroy(failure: unknown): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.#failure = failure;
    this.#stopLingering();
    this.#socket.destroy();
    this.sink.closed(failure as LacunaError);
    this.#onClosed();
  }

  /** Why it was closed. */
  get failure(): unknown {
    return this.#failure;
  }

  #adopt(accepted: Socket): Socket {
    const handle = takeHandle(accepted);
    const onread: OnReadOpts = {
      buffer: () => this.#buffer(),
      callback: (count) => this.#received(count),
    };
    const options = { handle, onread, allowHalfOpen: true };
    const socket = new Socket(options as ConstructorParameters<typeof Socket>[0]);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    enlargeSendBuffer(socket);
    return socket;
  }

  #listen(socket: Duplex): void {
    socket.on('error', (cause) => this.destroy(ended('the connection was lost', cause)));
    socket.on('end', () => this.onEnd());
    socket.on('close', () => this.destroy(ended('the connection was closed')));
  }

  #buffer(): Uint8Array {
    return this.#isDestroyed ? nowhere : this.sink.buffer();
  }

  #received(count: number): boolean {
    if (this.#isDestroyed) return false;
    try {
      this.sink.received(count);
    } catch (error) {
      this.destroy(error);
    }
    return !this.#isDestroyed;
  }

  #copy(socket: Duplex, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#isDestroyed) return;
      // Who does not want more for now will want the rest first.
      if (socket.isPaused()) {
        socket.unshift(bytes.subarray(at));
        return;
      }
      const room = this.#buffer();
      const count = Math.min(room.length, bytes.length - at);
      room.set(bytes.subarray(at, at + count));
      at += count;
      this.#received(count);
    }
  }
}

/** A client that vanished without a word is noticed by the system's probes. */
const KEEP_ALIVE_MS = 60_000;

function nothing(): void {}
