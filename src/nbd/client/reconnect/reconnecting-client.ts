import { LacunaError } from '../../../errors/index.js';
import type { ExtentList } from '../../../extent/index.js';
import { optionCheck, orAborted } from '../../../util/index.js';
import { checkTimeLimit } from '../connection/index.js';
import type {
  NbdClient,
  NbdConnectOptions,
  NbdReadOptions,
  NbdRequestOptions,
  NbdRequests,
  NbdStatusOptions,
  NbdWriteOptions,
  NbdZeroOptions,
} from '../export/index.js';
import { CONNECT } from '../export/index.js';
import { disconnected, locate } from '../failures/index.js';
import { ExportProperties } from '../handshake/index.js';
import { connectPatiently } from './connect-patiently.js';
import { Durability } from './durability.js';
import { difference, isLost } from './reconnect-rules.js';

/** Whom to connect to, and for how long a lost connection is made again. */
export interface NbdReconnectOptions extends NbdConnectOptions {
  /** How long requests wait for a lost connection to be made again. */
  readonly reconnectDelayMs: number;
  /** How long opening is tried again. Default 0: once. */
  readonly openTimeoutMs?: number;
}

const checkReconnectOptions = optionCheck<NbdReconnectOptions>({
  ...CONNECT,
  reconnectDelayMs: { needed: 'how long requests wait for a lost connection, in milliseconds' },
  openTimeoutMs: 'any',
});

/** A request that costs the connection so often is more likely the cause than a victim. */
const MOST_LOSSES = 8;
const NOTHING = {};

/**
 * An export whose connection is made again when it is lost. Requests wait meanwhile, each until its own
 * signal fires, and are then made again:
 *
 * - reads, status and cache, because they change nothing;
 * - writes, zeroes and trims that were not acknowledged, because their range then holds the same as if they had
 *   been carried out once (requests that overlap are awaited, see `NbdClient`; as with QEMU, a server that
 *   lives on must not carry out late what came over a connection that is gone);
 * - a flush, where nothing was acknowledged and not flushed. Otherwise it fails, and so does every later one,
 *   with ERR_NBD_UNFLUSHED: a server that crashed forgot what it had not flushed, nothing in NBD tells a
 *   crash from a cut cable, and until then reads may give bytes of before the write. Writes with `fua` are safe.
 *   An export that has no flush is taken at its word: what it acknowledged counts as durable.
 *
 * The export must be the same as before in size, abilities, contexts and block sizes. When it is not
 * (ERR_DEVICE_OPEN), or the time has passed (ERR_NBD_DISCONNECTED), all that waits and all that comes later fails.
 */
export class ReconnectingClient extends ExportProperties implements NbdRequests {
  readonly name: string;
  readonly #options: NbdReconnectOptions;
  readonly #agreement: NbdClient['agreement'];
  readonly #durability = new Durability();
  readonly #stop = new AbortController();
  /** Undefined while the connection is lost. */
  #client: NbdClient | undefined;
  #reconnecting: Promise<NbdClient> | undefined;
  /** Why there will be no connection any more. */
  #failure: LacunaError | undefined;
  #closing: Promise<void> | undefined;
  /** Connections that were lost, as long as they answer what they have. */
  readonly #leaving = new Set<Promise<void>>();
  #pending = 0;

  /**
   * Connects to a server and enters an export.
   *
   * @throws what `NbdClient.connect` throws, when the time to open has passed.
   */
  static async connect(options: NbdReconnectOptions): Promise<ReconnectingClient> {
    checkReconnectOptions('ReconnectingClient.connect', options);
    const { reconnectDelayMs, openTimeoutMs = 0, ...toConnect } = options;
    checkTimeLimit('reconnectDelayMs', reconnectDelayMs);
    checkTimeLimit('openTimeoutMs', openTimeoutMs);
    const client = await connectPatiently(toConnect, openTimeoutMs);
    return new ReconnectingClient(client, options);
  }

  private constructor(client: NbdClient, options: NbdReconnectOptions) {
    super(client.agreement);
    this.name = client.name;
    this.#agreement = client.agreement;
    this.#client = client;
    // The signal was for opening only.
    this.#options = { ...options, signal: this.#stop.signal };
  }

  get pending(): number {
    return this.#pending;
  }

  read(offset: number, target: Uint8Array, options: NbdReadOptions = NOTHING): Promise<void> {
    return this.#run((client) => client.read(offset, target, options), options);
  }

  write(offset: number, source: Uint8Array, options: NbdWriteOptions = NOTHING): Promise<void> {
    return this.#change((client) => client.write(offset, source, options), options);
  }

  writeZeroes(offset: number, length: number, options: NbdZeroOptions = NOTHING): Promise<void> {
    return this.#change((client) => client.writeZeroes(offset, length, options), options);
  }

  /** Not among what must be durable: what was trimmed may as well be there again. */
  trim(offset: number, length: number, options: NbdWriteOptions = NOTHING): Promise<void> {
    return this.#run((client) => client.trim(offset, length, options), options);
  }

  cache(offset: number, length: number, options: NbdRequestOptions = NOTHING): Promise<void> {
    return this.#run((client) => client.cache(offset, length, options), options);
  }

  flush(options: NbdRequestOptions = NOTHING): Promise<void> {
    return this.#run(async (client) => {
      this.#durability.check(this.name);
      const covered = this.#durability.acknowledged;
      await client.flush(options);
      this.#durability.flushed(covered);
    }, options);
  }

  blockStatus(
    offset: number,
    length: number,
    contexts: readonly string[],
    options: NbdStatusOptions = NOTHING,
  ): Promise<ExtentList[]> {
    return this.#run((client) => client.blockStatus(offset, length, contexts, options), options);
  }

  /** @internal The caller knows what may have been forgotten, and writes it again: flushes are for what is written from now on. */
  writesAgain(): void {
    this.#durability.forgive();
  }

  /** @internal Why something that was acknowledged may not be there any more. */
  get forgotten(): LacunaError | undefined {
    return this.#durability.doubt(this.name);
  }

  /** As `NbdClient.close`; while the connection is lost, what waits for it fails. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const client = this.#client;
    this.#stop.abort();
    await client?.close();
    await this.#reconnecting?.catch(() => {});
    await Promise.all(this.#leaving);
  }

  #change(request: (client: NbdClient) => Promise<void>, options: NbdWriteOptions): Promise<void> {
    return this.#run(async (client) => {
      await request(client);
      if (options.fua) return;
      this.#durability.changed();
      // The connection was lost before anybody could note this.
      if (this.#client !== client) this.#durability.lost();
    }, options);
  }

  async #run<T>(
    request: (client: NbdClient) => Promise<T>,
    { signal }: NbdRequestOptions,
  ): Promise<T> {
    if (this.#closing !== undefined) throw this.#closed();
    this.#pending++;
    try {
      for (let losses = 1; ; losses++) {
        const client = this.#client ?? (await this.#connected(signal));
        try {
          return await request(client);
        } catch (error) {
          if (!isLost(error)) throw error;
          this.#lose(client, error as LacunaError);
          if (losses === MOST_LOSSES) throw error;
        }
      }
    } finally {
      this.#pending--;
    }
  }

  async #connected(signal: AbortSignal | undefined): Promise<NbdClient> {
    if (this.#failure !== undefined) throw this.#failure;
    return orAborted(this.#reconnecting!, signal);
  }

  /** Said by each request that was on the connection; the first one counts. */
  #lose(client: NbdClient, reason: LacunaError): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#durability.lost();
    // One that is only shutting down still answers what it has.
    const leaving = client.close().finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
    this.#reconnecting = this.#reconnect(reason);
    // Nobody may be waiting.
    this.#reconnecting.catch(() => {});
  }

  async #reconnect(reason: LacunaError): Promise<NbdClient> {
    try {
      if (this.#closing !== undefined) throw reason;
      const { reconnectDelayMs, openTimeoutMs, ...toConnect } = this.#options;
      const client = await connectPatiently(toConnect, reconnectDelayMs);
      await this.#checkSame(client);
      if (this.#closing === undefined) {
        this.#client = client;
        return client;
      }
      // It was closed in the very moment; nobody else knows of this connection.
      await client.close();
      throw this.#closed();
    } catch (error) {
      this.#failure = this.#final(reason, error as LacunaError);
      throw this.#failure;
    }
  }

  async #checkSame(client: NbdClient): Promise<void> {
    const what = difference(this.#agreement, client.agreement);
    if (what === undefined) return;
    await client.close();
    const message = `${this.name}: after the connection was lost, the export is another one: ${what}`;
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: this.name });
  }

  #final(reason: LacunaError, error: LacunaError): LacunaError {
    if (error === reason) return reason;
    if (this.#closing !== undefined) return this.#closed();
    if (!isLost(error)) return locate(error, this.name);
    const seconds = this.#options.reconnectDelayMs / 1000;
    const what = `the connection was lost and could not be made again within ${seconds} s`;
    const why = error.message.replace(`${this.name}: `, '');
    return locate(disconnected(`${what} (${why})`, error), this.name);
  }

  #closed(): LacunaError {
    return new LacunaError('ERR_DEVICE_CLOSED', `${this.name}: the connection is closed`, {
      device: this.name,
    });
  }
}
