import { LacunaError } from '../../../errors/index.js';
import type { ExtentList } from '../../../extent/index.js';
import {
  connectPatiently,
  type ExportProperties,
  type NbdConnectOptions,
  type NbdRequests,
  ReconnectingClient,
} from '../../../nbd/index.js';
import type {
  Capabilities,
  Driver,
  Limits,
  WriteOptions,
  ZeroOptions,
} from '../../contract/index.js';
import type { NbdDescription } from './description.js';

type Client = NbdRequests & ExportProperties;

/** An export of an NBD server, over one connection, which may be made again when it is lost. */
export class NbdDriver implements Driver {
  readonly name: string;
  readonly description: NbdDescription;
  readonly size: number;
  readonly limits: Limits;
  readonly capabilities: Capabilities;
  readonly #client: Client;

  private constructor(client: Client, description: NbdDescription) {
    const write = !client.readOnly && description['read-only'] !== true;
    this.name = client.name;
    this.description = description;
    this.size = client.size;
    this.#client = client;
    this.limits = {
      minimum: client.minimumBlock,
      // The status that a server without block sizes tells may change at any byte.
      statusMinimum: client.requiredBlock,
      preferred: client.preferredBlock,
      maximum: client.maximumPayload,
      maximumZero: client.maximumLength,
      zeroAlignment: client.preferredBlock,
      discardAlignment: client.preferredBlock,
    };
    this.capabilities = {
      write,
      zero: client.canWriteZeroes,
      fastZero: client.canFastZero,
      discard: client.canTrim,
      flush: client.canFlush,
      contexts: client.contexts,
      contextsTogether: !client.canChooseContexts,
      // What a server calls data may well be zero; nothing in the protocol says how exact it is.
      exactStatus: false,
      multiConnection: client.canMultiConn,
      knownZero: false,
    };
  }

  /** @throws what `NbdClient.connect` throws, when the time to open has passed. */
  static async open(description: NbdDescription, signal?: AbortSignal): Promise<NbdDriver> {
    const { server, export: exportName, tls, contexts, allocation } = description;
    const { 'reconnect-delay': reconnectDelay = 0, 'open-timeout': openTimeout = 0 } = description;
    const limits = timeouts(description);
    const options = { server, export: exportName, tls, contexts, allocation, signal, ...limits };
    const openTimeoutMs = openTimeout * 1000;
    const client =
      reconnectDelay === 0
        ? await connectPatiently(options, openTimeoutMs)
        : await ReconnectingClient.connect({
            ...options,
            openTimeoutMs,
            reconnectDelayMs: reconnectDelay * 1000,
          });
    return new NbdDriver(client, description);
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#client.read(offset, target, { signal });
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    const write = (fua: boolean) =>
      this.#client.write(offset, source, { fua, signal: options.signal });
    return this.#durably(write, options);
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const zero = (fua: boolean) => this.#client.writeZeroes(offset, length, { ...options, fua });
    try {
      await this.#durably(zero, options);
    } catch (error) {
      const isSlow = error instanceof LacunaError && error.errno === 'ENOTSUP';
      if (!isSlow) throw error;
      const message = `${this.name} cannot zero without writing zeroes`;
      const context = { device: this.name, offset, length, cause: error };
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, context);
    }
  }

  discard(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    return this.#client.trim(offset, length, { signal });
  }

  flush(signal?: AbortSignal): Promise<void> {
    return this.#client.flush({ signal });
  }

  extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    return this.#client.blockStatus(offset, length, contexts, { signal });
  }

  writesAgain(): void {
    if (this.#client instanceof ReconnectingClient) this.#client.writesAgain();
  }

  get forgotten(): LacunaError | undefined {
    return this.#client instanceof ReconnectingClient ? this.#client.forgotten : undefined;
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  /** Sends a change, and a flush behind it where the server cannot make one request durable. */
  async #durably(
    change: (fua: boolean) => Promise<void>,
    { fua = false, signal }: WriteOptions,
  ): Promise<void> {
    const { canFua, canFlush } = this.#client;
    await change(fua && canFua);
    if (fua && !canFua && canFlush) await this.#client.flush({ signal });
  }
}

/** In milliseconds, where the description says any. */
function timeouts({
  'connect-timeout': connect,
  'request-timeout': request,
}: NbdDescription): Pick<NbdConnectOptions, 'connectTimeoutMs' | 'requestTimeoutMs'> {
  return {
    ...(connect !== undefined && {
      connectTimeoutMs: connect === 0 ? Number.POSITIVE_INFINITY : connect * 1000,
    }),
    ...(request !== undefined && { requestTimeoutMs: request * 1000 }),
  };
}
