import type { Socket } from 'node:net';
import type { NbdExportOptions } from '../export/index.js';
import { checkExportOptions, ServedExport } from '../export/index.js';
import type { Offer } from '../handshake/index.js';
import type { MemoryBudget } from '../limits/index.js';
import { BufferPool, checkWait, type NbdServerLimits, resolveLimits } from '../limits/index.js';
import { type OfferedTls, type ServerKeys, tlsOptions } from '../socket/index.js';
import { type ConnectionOptions, ServerConnection } from './connection.js';
import type { ClientEvents, NbdConnection, NbdHost } from './host.js';

/** What clients are served, and what is put up with. */
export interface NbdServiceOptions {
  /** What is served; names are unique. */
  readonly exports: readonly NbdExportOptions[];
  /** A client that has not entered an export by then is hung up on. Default 10 s. */
  readonly handshakeTimeoutMs?: number;
  /**
   * A client that neither asks anything nor takes its answers for so long is hung up on. Default 0: never, for a
   * disk that nobody uses may stay attached.
   */
  readonly idleTimeoutMs?: number;
  /** What one client may ask for; see {@link NbdServerLimits} for the defaults. */
  readonly limits?: Partial<NbdServerLimits>;
  /** Hears of requests that a device failed. The client is told no more than the kind of the error. */
  readonly onDeviceError?: (error: unknown) => void;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Serves clients in this thread: the server without its listener. */
export class NbdService implements NbdHost {
  /** What clients find. */
  readonly offer: Offer;
  readonly #exports: Map<string, ServedExport>;
  readonly #connections = new Set<NbdConnection>();
  #options: ConnectionOptions;

  /** @throws TypeError or RangeError when the options are not valid. */
  constructor(options: NbdServiceOptions, tls: OfferedTls, budget: MemoryBudget) {
    const { idleTimeoutMs = 0, handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS } = options;
    const limits = resolveLimits(options.limits);
    this.#exports = servedExports(options.exports, limits.maxPayload);
    this.offer = { exports: this.#exports, tls };
    this.#options = {
      limits,
      pool: new BufferPool(),
      offer: this.offer,
      tls: undefined,
      budget,
      handshakeTimeoutMs: checkWait('handshakeTimeoutMs', handshakeTimeoutMs),
      idleTimeoutMs: checkWait('idleTimeoutMs', idleTimeoutMs),
      onDeviceError: guarded(options.onDeviceError),
    };
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  start(keys: ServerKeys | undefined): void {
    if (keys !== undefined) this.#options = { ...this.#options, tls: tlsOptions(keys) };
  }

  /** Offers one more export to clients that come from now on. @throws TypeError or RangeError when it cannot be served. */
  addExport(options: NbdExportOptions): void {
    checkExportOptions('addExport', options);
    addTo(this.#exports, options, this.#options.limits.maxPayload);
  }

  /** Offers an export no more; clients that have entered it go on. @throws TypeError where no export has that name. */
  withdraw(name: string): void {
    if (!this.#exports.delete(name)) throw new TypeError(`there is no export "${name}"`);
  }

  accept(socket: Socket, events: ClientEvents): NbdConnection {
    const connection: NbdConnection = new ServerConnection(socket, this.#options, {
      entered: () => events.entered(),
      crowded: () => events.crowded(),
      closed: (failure) => {
        this.#connections.delete(connection);
        events.closed(failure);
      },
    });
    this.#connections.add(connection);
    return connection;
  }

  async close(): Promise<void> {}
}

function servedExports(
  exports: readonly NbdExportOptions[],
  maxPayload: number,
): Map<string, ServedExport> {
  const served = new Map<string, ServedExport>();
  if (!Array.isArray(exports)) throw new TypeError('NbdServer: exports must be a list');
  for (const [i, options] of exports.entries()) {
    checkExportOptions(`NbdServer: exports[${i}]`, options);
    addTo(served, options, maxPayload);
  }
  return served;
}

function addTo(
  served: Map<string, ServedExport>,
  options: NbdExportOptions,
  maxPayload: number,
): void {
  if (served.has(options.name)) throw new TypeError(`two exports have the name "${options.name}"`);
  served.set(options.name, new ServedExport(options, maxPayload));
}

/**
 * A listener that throws, at once or later, is not the client's fault, and must not end what the client does; a
 * warning of the process tells of it.
 */
export function guarded<E>(listener: (error: E) => unknown = nothing): (error: E) => void {
  return (error) => {
    void new Promise((resolve) => resolve(listener(error))).catch(warn);
  };
}

function warn(cause: unknown): void {
  const message = `A listener of the NBD server failed: ${cause instanceof Error ? cause.message : cause}`;
  process.emitWarning(Object.assign(new Error(message, { cause }), { name: 'LacunaWarning' }));
}

function nothing(): void {}
