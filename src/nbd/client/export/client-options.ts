import type { ExtentList } from '../../../extent/index.js';
import { optionCheck } from '../../../util/index.js';
import { AN_ADDRESS, type NbdServerAddress, type NbdTls } from '../../address/index.js';

/** Whom to connect to, and the limits of waiting. */
export interface NbdConnectOptions {
  /** Where it listens. */
  readonly server: NbdServerAddress;
  /** Name of the export; default the empty name, the server's default export. */
  readonly export?: string;
  /** Requires TLS, and says who may be trusted. Default: in plain. */
  readonly tls?: NbdTls;
  /** Metadata contexts that the server must grant, beside `base:allocation`. */
  readonly contexts?: readonly string[];
  /**
   * Ask for `base:allocation` as well, which the server may refuse. Default true. Without it, a server that
   * answers about all contexts at once need not look for what is allocated.
   */
  readonly allocation?: boolean;
  /** Ask for extended headers, with which one request may speak of more than 4 GiB. Default true. */
  readonly extendedHeaders?: boolean;
  /** Limit for connecting and the handshake together. Default 15 s. */
  readonly connectTimeoutMs?: number;
  /** No progress for so long with requests pending ends the connection. Default 5 min; 0 for ever. */
  readonly requestTimeoutMs?: number;
  /** Ends connecting; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

/** What is needed to ask a server something without using an export. */
export type NbdQueryOptions = Pick<NbdConnectOptions, 'tls' | 'connectTimeoutMs' | 'signal'>;

/** What every request may be told. */
export interface NbdRequestOptions {
  /** Fires to end waiting: the call fails with ERR_ABORTED, while the server may still carry the request out. */
  readonly signal?: AbortSignal;
}

/** How bytes are read (NBD_CMD_READ). */
export interface NbdReadOptions extends NbdRequestOptions {
  /** The server must not send the bytes in several chunks; it may refuse with EOVERFLOW. Default false. */
  readonly dontFragment?: boolean;
}

/** How bytes are stored (NBD_CMD_WRITE, NBD_CMD_TRIM). */
export interface NbdWriteOptions extends NbdRequestOptions {
  /** The bytes are durable when the call returns. */
  readonly fua?: boolean;
}

/** How a range is made to read as zero (NBD_CMD_WRITE_ZEROES). */
export interface NbdZeroOptions extends NbdWriteOptions {
  /** The range may become a hole. Default true. */
  readonly unmap?: boolean;
  /** Fail with errno ENOTSUP rather than be as slow as writing. Default false. */
  readonly fast?: boolean;
}

/** How much a status query is to answer (NBD_CMD_BLOCK_STATUS). */
export interface NbdStatusOptions extends NbdRequestOptions {
  /** Only the first extent of each context, cut to the range. Default false. */
  readonly one?: boolean;
}

/** The requests of an export, over one connection or over one that is made again when it is lost. */
export interface NbdRequests {
  /** The export's URI, as messages name it. */
  readonly name: string;
  /** Requests that are not done yet. */
  readonly pending: number;
  /**
   * Fills the whole of `target` with the bytes at `offset`. They are received straight into it, so it
   * may be a view of shared memory, and must stay where it is until the promise is settled.
   */
  read(offset: number, target: Uint8Array, options?: NbdReadOptions): Promise<void>;
  /** Stores the whole of `source`, which must not change until the promise is settled. */
  write(offset: number, source: Uint8Array, options?: NbdWriteOptions): Promise<void>;
  /**
   * Makes a range of any length read as zero; one that is longer than `maximumLength` by several requests,
   * one after another.
   */
  writeZeroes(offset: number, length: number, options?: NbdZeroOptions): Promise<void>;
  /** Says that a range is not needed any more; what it reads as afterwards is undefined. */
  trim(offset: number, length: number, options?: NbdWriteOptions): Promise<void>;
  /** Says that a range will be read soon. */
  cache(offset: number, length: number, options?: NbdRequestOptions): Promise<void>;
  /** Makes every write durable whose promise has resolved before. */
  flush(options?: NbdRequestOptions): Promise<void>;
  /**
   * The status of a range, one list for each context asked, in that order. Each begins at `offset` and
   * may end before or behind the range, but never behind the export: ask again from where it ends.
   * The flags of `base:allocation` are `Status` bits, those of other contexts as the server sent them.
   *
   * @throws LacunaError ERR_CONTEXT_UNKNOWN for a context that was not granted.
   */
  blockStatus(
    offset: number,
    length: number,
    contexts: readonly string[],
    options?: NbdStatusOptions,
  ): Promise<ExtentList[]>;
  /** Waits for what is in flight, says goodbye and closes; safe to call more than once. */
  close(): Promise<void>;
}

const QUERY = { tls: 'any', connectTimeoutMs: 'any', signal: 'signal' } as const;

/** What {@link NbdConnectOptions} has. */
export const CONNECT = {
  ...QUERY,
  server: { needed: AN_ADDRESS },
  export: 'any',
  contexts: 'any',
  allocation: 'flag',
  extendedHeaders: 'flag',
  requestTimeoutMs: 'any',
} as const;

export const checkConnectOptions = optionCheck<NbdConnectOptions>(CONNECT);

export const checkQueryOptions = optionCheck<NbdQueryOptions>(QUERY);

export const checkInfoOptions = optionCheck<NbdQueryOptions & { readonly export?: string }>({
  ...QUERY,
  export: 'any',
});
