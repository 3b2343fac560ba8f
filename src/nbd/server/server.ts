import { existsSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import { afterWaiting, describeRefusal, optionCheck } from '../../util/index.js';
import {
  checkAddressKeys,
  checkListenAddress,
  checkServerTls,
  checkTlsKeys,
  formatNbdUri,
  type NbdListenAddress,
  type NbdServerAddress,
  type NbdServerTls,
} from '../address/index.js';
import type { NbdExportOptions } from './export/index.js';
import { ended } from './failures/index.js';
import {
  type BudgetCounters,
  type BudgetPlan,
  checkCount,
  checkWait,
  MemoryBudget,
  planBudget,
} from './limits/index.js';
import type { ClientEvents, NbdConnection, NbdHost } from './service/index.js';
import { guarded, NbdService, type NbdServiceOptions } from './service/index.js';
import { offeredTls, readKeys, socketPathOf } from './socket/index.js';

/** What a server serves, to whom, and what it puts up with. */
export interface NbdServerOptions extends NbdServiceOptions {
  /** Default: no TLS. */
  readonly tls?: NbdServerTls;
  /**
   * Clients that have entered an export; more are hung up on. Default 100. Clients in the handshake do not count: there
   * are at most 100, and a new one takes the place of the one that has been in it longest.
   */
  readonly maxConnections?: number;
  /**
   * Bytes that all clients together may make the server hold for payloads and answers, at least 64 KiB for each of
   * `maxConnections`. Default 256 MiB, or more where more than 1024 clients are allowed. Each has its share of it; what
   * does not fit into that is carried out in pieces.
   */
  readonly maxMemory?: number;
  /** Hears why a client was hung up on: it broke the protocol, was too slow, or there were too many. */
  readonly onRefused?: (error: LacunaError) => void;
}

const checkServerOptions = optionCheck<NbdServerOptions>({
  exports: { needed: 'a list; each is { name, device }' },
  tls: 'any',
  maxConnections: 'any',
  maxMemory: 'any',
  handshakeTimeoutMs: 'any',
  idleTimeoutMs: 'any',
  limits: 'any',
  onRefused: 'callback',
  onDeviceError: 'callback',
});

/**
 * Who serves clients beside the thread of the server, whose own service and budget of memory are given: a client goes to
 * the host with the fewest.
 */
export type MakeHosts = (own: NbdHost, budget: BudgetPlan) => readonly NbdHost[];

/** How patiently a server ends. */
export interface NbdServerCloseOptions {
  /** What is in flight is answered for so long; then connections are cut. Default 10 s. */
  readonly timeoutMs?: number;
}

const checkCloseOptions = optionCheck<NbdServerCloseOptions>({ timeoutMs: 'any' });

const MAX_CONNECTIONS = 100;
/** Memory and file descriptors of clients that have not shown yet that they mean it. */
const MAX_HANDSHAKES = 100;
const CLOSE_TIMEOUT_MS = 10_000;

/**
 * Serves devices over NBD. Devices stay open when the server closes: they belong to whoever opened them.
 *
 * @example
 * const server = new NbdServer({ exports: [{ name: 'disk', device }] });
 * await server.listen({ type: 'unix', path: '/run/disk.sock' });
 * console.log(server.uri('disk'));
 */
export class NbdServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #connections = new Set<NbdConnection>();
  /** Those that have not entered an export, the oldest first. */
  readonly #handshakes = new Set<NbdConnection>();
  readonly #service: NbdService;
  readonly #hosts: readonly NbdHost[];
  readonly #maxConnections: number;
  readonly #budget: MemoryBudget;
  readonly #tls: NbdServerTls | undefined;
  readonly #onRefused: (error: LacunaError) => void;
  #address: NbdServerAddress | undefined;
  #started = false;
  #closing: Promise<void> | undefined;
  #whenEmpty: (() => void) | undefined;
  /** Called when a client is gone whose export is being removed. */
  readonly #leaving = new Map<NbdConnection, () => void>();

  /** @throws TypeError or RangeError when the options are not valid. */
  constructor(options: NbdServerOptions);
  /** @internal */
  constructor(options: NbdServerOptions, others?: MakeHosts, counters?: BudgetCounters);
  constructor(options: NbdServerOptions, others: MakeHosts = () => [], counters?: BudgetCounters) {
    checkServerOptions('NbdServer', options);
    const { tls, maxConnections = MAX_CONNECTIONS } = options;
    checkTlsKeys('NbdServer: tls', tls);
    if (tls !== undefined) checkServerTls(tls);
    this.#tls = tls;
    this.#maxConnections = checkCount('maxConnections', maxConnections, 1, 2 ** 31);
    this.#onRefused = guarded(options.onRefused);
    const plan = planBudget(options.maxMemory, this.#maxConnections);
    this.#budget = new MemoryBudget(plan, counters);
    this.#service = new NbdService(options, offeredTls(tls), this.#budget);
    this.#hosts = [this.#service, ...others(this.#service, plan)];
    this.#server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
      this.#accept(socket),
    );
    // What accept() itself reports, such as too many open files: the next client may fare better.
    this.#server.on('error', nothing);
  }

  /**
   * Where it listens, with the port that the system chose. Undefined before `listen` and after `close`, and for a handed
   * socket whose path the system does not tell.
   */
  get address(): NbdServerAddress | undefined {
    return this.#address;
  }

  /** Clients that are connected. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  /** The names of the exports. */
  get exportNames(): readonly string[] {
    return [...this.#service.offer.exports.keys()];
  }

  /** Clients that use an export. */
  clientsOf(exportName: string): number {
    return [...this.#connections].filter((client) => client.exportName === exportName).length;
  }

  /**
   * Serves one more export, to clients that ask from now on.
   *
   * @throws TypeError or RangeError where it cannot be served. TypeError where the server has threads: those keep the exports that
   * they began with.
   */
  addExport(options: NbdExportOptions): void {
    this.#checkOneThread();
    this.#service.addExport(options);
  }

  /**
   * Stops serving an export: no client finds it from now on, and those that use it get the answers to what they have asked, and
   * are disconnected. Resolves when the last of them is gone; its device is not used any more then.
   *
   * @throws TypeError where no export has that name, or the server has threads; RangeError for a timeout that is not valid.
   */
  async removeExport(name: string, options: NbdServerCloseOptions = {}): Promise<void> {
    checkCloseOptions('removeExport', options);
    const { timeoutMs = CLOSE_TIMEOUT_MS } = options;
    checkWait('timeoutMs', timeoutMs);
    this.#checkOneThread();
    this.#service.withdraw(name);
    const clients = [...this.#connections].filter(({ exportName }) => exportName === name);
    const gone = clients.map(
      (client) => new Promise<void>((resolve) => this.#leaving.set(client, resolve)),
    );
    for (const client of clients) client.shutdown();
    const stopWaiting = afterWaiting(timeoutMs, () => {
      for (const client of clients) client.destroy(ended('it took too long'));
    });
    await Promise.all(gone);
    stopWaiting();
  }

  #checkOneThread(): void {
    if (this.#hosts.length === 1) return;
    throw new TypeError(
      'a server with threads keeps the exports that it began with: say threads: 0',
    );
  }

  /**
   * Listens. A Unix socket must not exist; port 0 lets the system choose. A socket that was handed to this process
   * listens already, and stays where it is when the server closes.
   *
   * @returns where clients find it; undefined for a handed socket whose path the system does not tell
   * @throws LacunaError ERR_DEVICE_OPEN when the address cannot be listened on, ERR_NBD_TLS when keys or
   * certificates cannot be used; TypeError or RangeError for an address that is none.
   */
  async listen(address: NbdServerAddress): Promise<NbdServerAddress>;
  async listen(address: NbdListenAddress): Promise<NbdServerAddress | undefined>;
  async listen(address: NbdListenAddress): Promise<NbdServerAddress | undefined> {
    if (this.#started || this.#closing !== undefined) throw new TypeError('a server listens once');
    if (address?.type !== 'fd') checkAddressKeys('listen', address);
    checkListenAddress(address);
    this.#started = true;
    const keys = this.#tls && (await readKeys(this.#tls));
    if (this.#closing !== undefined) throw new TypeError('the server was closed');
    for (const host of this.#hosts) host.start(keys);
    return this.#listen(address);
  }

  #listen(address: NbdListenAddress): Promise<NbdServerAddress | undefined> {
    const { type, ...where } = address;
    return new Promise((resolve, reject) => {
      const failed = (cause: NodeJS.ErrnoException) => reject(cannotListen(address, cause));
      const closed = () => reject(new TypeError('the server was closed'));
      this.#server.once('error', failed).once('close', closed);
      const listening = () => {
        this.#server.off('error', failed).off('close', closed);
        this.#address = this.#bound(address);
        resolve(this.#address);
      };
      try {
        this.#server.listen(where, listening);
      } catch (cause) {
        // A descriptor that is no socket.
        failed(cause as NodeJS.ErrnoException);
      }
    });
  }

  /**
   * The URI of an export, for any NBD client. Where clients prove themselves with a pre-shared key it says so; whose
   * key it is and where that is kept each client adds for itself: `nbds://USER@...&tls-psk-file=FILE`.
   *
   * @throws TypeError when the server does not listen, or nobody knows where, or it has no such export.
   */
  uri(exportName: string): string {
    if (this.#address === undefined) {
      throw new TypeError('the server does not listen, or where is not known');
    }
    const { exports, tls } = this.#service.offer;
    if (!exports.has(exportName)) throw new TypeError(`there is no export "${exportName}"`);
    const proof = tls === 'require' ? this.#tls?.type : undefined;
    return formatNbdUri(this.#address, exportName, proof && { type: proof });
  }

  /**
   * Stops listening, answers what is in flight, and closes every connection. Closing again is harmless.
   *
   * @throws RangeError when the timeout is none.
   */
  async close(options: NbdServerCloseOptions = {}): Promise<void> {
    checkCloseOptions('close', options);
    const { timeoutMs = CLOSE_TIMEOUT_MS } = options;
    checkWait('timeoutMs', timeoutMs);
    this.#closing ??= this.#shut(timeoutMs);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #shut(timeoutMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#address = undefined;
    const empty = new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
      if (this.#connections.size === 0) resolve();
    });
    for (const connection of this.#connections) connection.shutdown();
    const stopWaiting = afterWaiting(timeoutMs, () => {
      for (const connection of this.#connections) connection.destroy(ended('it took too long'));
    });
    await Promise.all([closed, empty]);
    stopWaiting();
    await Promise.all(this.#hosts.map((host) => host.close()));
  }

  #accept(socket: Socket): void {
    if (this.#closing !== undefined) {
      socket.destroy();
      return;
    }
    if (this.#budget.clients >= this.#maxConnections) {
      socket.destroy();
      this.#onRefused(this.#tooMany());
      return;
    }
    this.#makeRoom();
    const host = this.#hosts.reduce(lessBusy);
    const events: ClientEvents = {
      entered: () => void this.#handshakes.delete(connection),
      crowded: () => this.#refuse(connection, this.#tooMany()),
      closed: (failure) => this.#closed(connection, failure),
    };
    const connection: NbdConnection = host.accept(socket, events);
    this.#connections.add(connection);
    this.#handshakes.add(connection);
  }

  #tooMany(): LacunaError {
    return new LacunaError('ERR_NBD_DISCONNECTED', `more than ${this.#maxConnections} clients`);
  }

  /** Ends the oldest handshake where there are too many: a client that means it is done in a moment. */
  #makeRoom(): void {
    if (this.#handshakes.size < MAX_HANDSHAKES) return;
    const [oldest] = this.#handshakes;
    this.#refuse(
      oldest,
      ended(`more than ${MAX_HANDSHAKES} clients have not completed the handshake`),
    );
  }

  #refuse(connection: NbdConnection, failure: LacunaError): void {
    this.#onRefused(failure);
    connection.destroy(failure);
  }

  #closed(connection: NbdConnection, failure: unknown): void {
    this.#connections.delete(connection);
    this.#handshakes.delete(connection);
    this.#leaving.get(connection)?.();
    this.#leaving.delete(connection);
    const faults = failure instanceof LacunaError && failure.code !== 'ERR_NBD_DISCONNECTED';
    if (faults) this.#onRefused(failure);
    if (this.#connections.size === 0) this.#whenEmpty?.();
  }

  #bound(asked: NbdListenAddress): NbdServerAddress | undefined {
    const bound = this.#server.address();
    if (bound !== null && typeof bound === 'object') {
      const { address, port } = bound;
      return { type: 'inet', host: asked.type === 'inet' ? asked.host : address, port };
    }
    if (asked.type !== 'fd') return asked;
    const path = socketPathOf(asked.fd);
    return path === undefined ? undefined : { type: 'unix', path };
  }
}

function lessBusy(one: NbdHost, other: NbdHost): NbdHost {
  return other.connectionCount < one.connectionCount ? other : one;
}

const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'choose a port above 1023, or get the right to a lower one',
  EADDRINUSE: 'somebody listens there already: choose another',
  EADDRNOTAVAIL: 'this machine has no such address: name one that it has, or 0.0.0.0 for all',
  EAI_AGAIN: 'the name could not be looked up: say an address, or try again',
  ENOTFOUND: 'no machine has that name: check it, or say an address',
};

/** Why a file system lets nobody make a socket. */
function whyNoSocket(path: string, errno: string): string {
  const what = `cannot listen on ${path}`;
  if (path.endsWith('/')) return `${what} (${errno}): it names a folder; name a socket in it`;
  if (errno !== 'EACCES') return describeRefusal(what, errno, { making: true });
  const folder = dirname(path);
  // Node says the same where there is none.
  const advice = existsSync(folder)
    ? `you may not write into ${folder}: choose another folder`
    : `there is no folder ${folder}: make it, or choose another path`;
  return `${what} (${errno}): ${advice}`;
}

function cannotListen(address: NbdListenAddress, cause: NodeJS.ErrnoException): LacunaError {
  const where = nameOf(address);
  const { code: errno } = cause;
  const isFile = address.type === 'unix' && errno !== undefined && errno !== 'EADDRINUSE';
  const advice = ADVICE[errno ?? ''];
  const message = isFile
    ? whyNoSocket(address.path, errno)
    : `cannot listen on ${where}: ${cause.message}${advice ? `; ${advice}` : ''}`;
  return new LacunaError('ERR_DEVICE_OPEN', message, {
    device: where,
    cause,
    ...(errno !== undefined && { errno }),
  });
}

function nameOf(address: NbdListenAddress): string {
  if (address.type === 'fd') return `file descriptor ${address.fd}`;
  return address.type === 'unix' ? address.path : `${address.host}:${address.port}`;
}

function nothing(): void {}
