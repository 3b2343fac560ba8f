import { createServer, type Server, type Socket } from 'node:net';
import { LacunaError } from '../../errors/index.js';
import { afterWaiting, checkGiven, optionCheck } from '../../util/index.js';
import { eventText, greetingText, type JsonObject, type QmpVersion } from '../wire/index.js';
import { QmpServerClient } from './client.js';
import { QmpCommandError } from './command-error.js';
import {
  listenAt,
  type QmpListenAddress,
  type QmpListenDescriptor,
  type QmpListenPath,
} from './listen.js';

/**
 * Carries out a command; what it returns is answered, and must be JSON. It checks its arguments. The message of what it
 * throws is told to the client.
 */
export type QmpCommand = (args: JsonObject) => unknown;

/** What a QMP server puts up with. */
export interface QmpServerLimits {
  /** Clients at one time; more are hung up on. Default 256. */
  readonly clients?: number;
  /** Bytes of one command. Default 64 MiB, as in QEMU. */
  readonly messageBytes?: number;
  /** Bytes of commands that are not whole yet, of all clients together. Default 256 MiB. */
  readonly heldBytes?: number;
  /** Bytes that may wait for a client that does not read, beside one answer; it is hung up on then. Default 4 MiB. */
  readonly backlogBytes?: number;
}

/** What a QMP server offers. */
export interface QmpServerOptions {
  /** The commands by their names. `qmp_capabilities` belongs to the server. */
  readonly commands: Readonly<Record<string, QmpCommand>>;
  /** The version that it greets with: clients read from it what they can expect. */
  readonly version: QmpVersion;
  /** What it puts up with. */
  readonly limits?: QmpServerLimits;
  /** Hears why a client was hung up on. */
  readonly onRefused?: (error: LacunaError) => void;
}

/** How patiently a QMP server ends. */
export interface QmpServerCloseOptions {
  /** Milliseconds for commands that are under way; then connections are cut. Default 10,000. */
  readonly timeoutMs?: number;
}

const checkServer = optionCheck<QmpServerOptions>({
  commands: { needed: 'functions by the names of commands' },
  version: { needed: 'major, minor, micro and package' },
  limits: 'any',
  onRefused: 'callback',
});
const checkLimits = optionCheck<QmpServerLimits>({
  clients: 'any',
  messageBytes: 'any',
  heldBytes: 'any',
  backlogBytes: 'any',
});
const checkPath = optionCheck<QmpListenPath>({ path: { needed: 'where the socket is' } });
const checkDescriptor = optionCheck<QmpListenDescriptor>({
  fd: { needed: 'the descriptor of a socket that listens' },
});
const checkClose = optionCheck<QmpServerCloseOptions>({ timeoutMs: 'any' });

const DEFAULTS: Required<QmpServerLimits> = {
  clients: 256,
  messageBytes: 64 * 2 ** 20,
  heldBytes: 256 * 2 ** 20,
  backlogBytes: 4 * 2 ** 20,
};
const CLOSE_MS = 10_000;
const ALREADY = 'Capabilities negotiation is already complete, command ignored';

/**
 * Offers commands over QMP, the protocol of QEMU's monitors, to several clients at once. Each client's commands are carried out
 * one after another; nothing goes out of band.
 *
 *     const server = new QmpServer({ commands: { 'query-name': () => ({ name: 'a' }) }, version });
 *     await server.listen({ path: '/run/a.qmp' });
 *     server.event('SHUTDOWN');
 */
export class QmpServer implements AsyncDisposable {
  readonly #commands: ReadonlyMap<string, QmpCommand>;
  readonly #greeting: string;
  readonly #limits: Required<QmpServerLimits>;
  readonly #onRefused: (error: LacunaError) => void;
  readonly #listeners = new Set<Server>();
  /** With the bytes of what each has begun to send. */
  readonly #clients = new Map<QmpServerClient, number>();
  #heldBytes = 0;
  #closing: Promise<void> | undefined;
  #whenEmpty: (() => void) | undefined;

  /** @throws TypeError or RangeError for options that make no sense. */
  constructor(options: QmpServerOptions) {
    checkServer('QmpServer', options);
    checkLimits('QmpServer: limits', options.limits ?? {});
    this.#commands = new Map(Object.entries(options.commands));
    for (const [name, command] of this.#commands) {
      if (typeof command === 'function' && name !== 'qmp_capabilities') continue;
      throw new TypeError(`QmpServer: commands: '${name}' must be a function of one's own`);
    }
    this.#greeting = greetingText(options.version, []);
    this.#limits = { ...DEFAULTS, ...options.limits };
    for (const [name, limit] of Object.entries(this.#limits)) {
      if (Number.isSafeInteger(limit) && limit > 0) continue;
      throw new RangeError(`QmpServer: limits: ${name} must be a whole number above 0`);
    }
    this.#onRefused = options.onRefused ?? (() => {});
  }

  /** Clients that are connected. */
  get clientCount(): number {
    return this.#clients.size;
  }

  /**
   * Listens; it may do so in several places. `{ path }` is a Unix socket, which is made with mode 0600, and removed at the end; one that a server has left
   * behind is replaced. `{ fd }` is a listening socket that this process was handed.
   *
   * @throws LacunaError ERR_DEVICE_OPEN where it cannot listen; TypeError for an address that is none.
   */
  async listen(address: QmpListenAddress): Promise<void> {
    checkGiven('QmpServer.listen', 'address', address, '{ path } of the socket');
    checkAddress(address);
    if (this.#closing !== undefined) throw new TypeError('the server was closed');
    const server = createServer({ allowHalfOpen: true }, (socket) => this.attach(socket));
    await listenAt(server, address);
    // What accept() reports, such as too many open files: the next client may fare better.
    server.on('error', () => {});
    this.#listeners.add(server);
    // It was closed meanwhile.
    if (this.#closing !== undefined) server.close();
  }

  /** Serves a client that has connected to a listener of one's own, which allows half-open connections. */
  attach(socket: Socket): void {
    const { clients } = this.#limits;
    if (this.#closing !== undefined || this.#clients.size >= clients) {
      socket.destroy();
      if (this.#closing !== undefined) return;
      const message = `a client was hung up on: there are ${clients} already`;
      this.#onRefused(new LacunaError('ERR_QMP_DISCONNECTED', message));
      return;
    }
    const client: QmpServerClient = new QmpServerClient(
      socket,
      {
        execute: ({ command, args }) => this.#execute(command, args),
        holds: (bytes) => this.#holds(client, bytes),
        closed: (failure) => this.#closed(client, failure),
      },
      this.#limits,
      this.#greeting,
    );
    this.#clients.set(client, 0);
  }

  /** Tells all clients of something that has happened now. */
  event(name: string, data?: object): void {
    if (this.#clients.size === 0) return;
    const text = eventText(name, data, Date.now());
    for (const client of [...this.#clients.keys()]) client.tell(text);
  }

  /**
   * Stops listening, answers the commands that are under way, and ends all connections. Closing again is harmless.
   *
   * @throws RangeError when the timeout is none.
   */
  async close(options: QmpServerCloseOptions = {}): Promise<void> {
    checkClose('QmpServer.close', options);
    const { timeoutMs = CLOSE_MS } = options;
    if (!(timeoutMs >= 0)) throw new RangeError(`timeoutMs must be 0 or more, not ${timeoutMs}`);
    this.#closing ??= this.#shut(timeoutMs);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #shut(timeoutMs: number): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    if (this.#clients.size === 0) return;
    const empty = new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
    });
    for (const client of [...this.#clients.keys()]) client.shutdown();
    const stopWaiting = afterWaiting(timeoutMs, () => {
      const failure = new LacunaError(
        'ERR_QMP_DISCONNECTED',
        `a client was hung up on: the server ends, and ${timeoutMs} ms were over`,
      );
      for (const client of [...this.#clients.keys()]) client.hangUp(failure);
    });
    await empty;
    stopWaiting();
  }

  #execute(name: string, args: JsonObject): unknown {
    if (name === 'qmp_capabilities') throw new QmpCommandError('CommandNotFound', ALREADY);
    const command = this.#commands.get(name);
    if (command !== undefined) return command(args);
    throw new QmpCommandError('CommandNotFound', `The command ${name} has not been found`);
  }

  #holds(client: QmpServerClient, bytes: number): boolean {
    this.#heldBytes += bytes - (this.#clients.get(client) ?? 0);
    this.#clients.set(client, bytes);
    return this.#heldBytes <= this.#limits.heldBytes;
  }

  #closed(client: QmpServerClient, failure: LacunaError | undefined): void {
    this.#heldBytes -= this.#clients.get(client) ?? 0;
    this.#clients.delete(client);
    if (failure !== undefined) this.#onRefused(failure);
    if (this.#clients.size === 0) this.#whenEmpty?.();
  }
}

/** @throws TypeError */
function checkAddress(address: QmpListenAddress): void {
  if ('fd' in address) {
    checkDescriptor('QmpServer.listen: address', address);
    if (Number.isInteger(address.fd) && address.fd >= 0) return;
    throw new TypeError(`QmpServer.listen: fd must be a file descriptor, not ${address.fd}`);
  }
  checkPath('QmpServer.listen: address', address);
  if (typeof address.path === 'string' && address.path !== '') return;
  throw new TypeError('QmpServer.listen: path must be the path of a socket');
}
