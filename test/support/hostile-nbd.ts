import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TLSSocket, type TLSSocketOptions } from 'node:tls';
import { onTestFinished } from 'vitest';
import { Option } from '#dist/nbd/wire/constants.js';
import {
  EXTENDED_REQUEST_BYTES,
  REQUEST_BYTES,
  type RequestHeader,
} from '#dist/nbd/wire/requests.js';
import * as wire from './hostile-nbd-wire.js';
import { extendedRequestAt, requestAt } from './read-wire.js';

export interface ScriptedExport {
  size?: number | bigint;
  flags?: number;
  structured?: boolean;
  /** Grants extended headers; requests are then read so, and replies are the test's own. */
  extended?: boolean;
  /** Granted contexts; a context's id is its index. */
  contexts?: readonly string[];
}

/** HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES. */
const ABLE = 1 | 4 | 8 | 32 | 64;

/** The server's end of one connection, driven by a test step by step. */
export class HostileConnection {
  readonly #socket: Socket;
  #received: Uint8Array = new Uint8Array(0);
  #wake: () => void = () => {};
  #ended = false;
  #extended = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => {
      this.#received = wire.concat(this.#received, bytes as Uint8Array);
      this.#wake();
    });
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    socket.on('close', end);
    socket.on('error', end);
  }

  send(...parts: readonly Uint8Array[]): void {
    this.#socket.write(wire.concat(...parts));
  }

  /** Sends the answer to STARTTLS and becomes a TLS server; nothing more is received in plain. */
  startTls(answer: Uint8Array, options: TLSSocketOptions, secured: () => void): void {
    this.#socket.removeAllListeners('data');
    this.#socket.write(answer);
    const socket = new TLSSocket(this.#socket, { ...options, isServer: true });
    socket.on('secure', secured);
    socket.on('error', () => this.#socket.destroy());
  }

  hangUp(): void {
    this.#socket.destroy();
  }

  /** Stops reading, so that what the client writes piles up at its side. */
  stopReading(): void {
    this.#socket.pause();
  }

  goOnReading(): void {
    this.#socket.resume();
  }

  /** Resolves when the client has taken what was sent, as far as the system holds no more. */
  async sent(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.write('', () => resolve()));
  }

  async take(count: number): Promise<Uint8Array> {
    while (this.#received.length < count) {
      if (this.#ended) throw new Error('the client is gone');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const bytes = this.#received.slice(0, count);
    this.#received = this.#received.slice(count);
    return bytes;
  }

  async option(): Promise<number> {
    const view = new DataView((await this.take(16)).buffer);
    await this.take(view.getUint32(12));
    return view.getUint32(8);
  }

  /** Next request's header; a write's payload is taken and dropped. */
  async request(): Promise<RequestHeader> {
    const size = this.#extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    const read = this.#extended ? extendedRequestAt : requestAt;
    const header = read(new DataView((await this.take(size)).buffer), 0);
    if (header === undefined) throw new Error('the client sent no request magic');
    if (header.command === 1) await this.take(header.length);
    return header;
  }

  /** A whole, correct handshake. */
  async negotiate(scripted: ScriptedExport = {}): Promise<void> {
    this.#extended = scripted.extended ?? false;
    this.send(wire.greeting());
    await this.take(4);
    for (;;) {
      const option = await this.option();
      this.send(...answers(option, scripted));
      if (option === Option.go) return;
    }
  }
}

function answers(option: number, scripted: ScriptedExport): Uint8Array[] {
  const { size = 2 ** 20, flags = ABLE, structured = true } = scripted;
  const { contexts = ['base:allocation'] } = scripted;
  switch (option) {
    case Option.extendedHeaders:
      return [scripted.extended ? wire.ack(option) : wire.optionError(option, 0x80000001)];
    case Option.structuredReply:
      return [structured ? wire.ack(option) : wire.optionError(option, 0x80000001)];
    case Option.setMetaContext:
      return [...contexts.map((name, id) => wire.grantContext(id, name)), wire.ack(option)];
    case Option.go:
      return [wire.exportInfo(size, flags), wire.ack(option)];
    default:
      return [wire.optionError(option, 0x80000001)];
  }
}

/** Serves every connection with `script` until the test ends; returns the server's address. */
export async function serveHostile(
  script: (connection: HostileConnection, index: number) => Promise<void> | void,
): Promise<{ type: 'unix'; path: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
  const path = join(folder, 's');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const index = sockets.size;
    sockets.add(socket);
    // A script that waits for a client that is gone ends by this error; that is no failure.
    Promise.resolve(script(new HostileConnection(socket), index)).catch(() => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await rm(folder, { recursive: true, force: true });
  });
  return { type: 'unix', path };
}
