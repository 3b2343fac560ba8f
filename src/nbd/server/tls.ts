import type { Duplex } from 'node:stream';
import { createServer, type SecureContextOptions, type TLSSocket, type TlsOptions } from 'node:tls';
import { ended } from './failures.js';

/** How a server speaks TLS, which clients begin with NBD_OPT_STARTTLS. */
export interface NbdServerTls {
  /**
   * `require` (the default): a client learns nothing without TLS. `on`: the client chooses, so whoever sits in
   * between can choose for it. `off`: there is none.
   */
  readonly mode?: 'off' | 'on' | 'require';
  /** Certificate, key, and whose clients are trusted; as in node:tls. */
  readonly context?: SecureContextOptions;
  /** Let in only clients with a certificate that `context.ca` vouches for. Default: where there is a `ca`. */
  readonly verifyPeer?: boolean;
  /** The secret shared with a client that goes by this name; undefined for one that is not known. */
  readonly psk?: (identity: string) => Uint8Array | undefined;
}

/** @throws TypeError or what node:tls throws where the options are of no use. */
export function resolveTls(tls: NbdServerTls): TlsOptions {
  const { context = {}, psk } = tls;
  if (psk === undefined && context.key === undefined && context.pfx === undefined) {
    throw new TypeError('TLS needs a key and a certificate (context), or shared secrets (psk)');
  }
  const verify = tls.verifyPeer ?? context.ca !== undefined;
  if (verify && context.ca === undefined) throw new TypeError('verifyPeer needs context.ca');
  const options: TlsOptions = {
    minVersion: 'TLSv1.2',
    ...(psk !== undefined && context.key === undefined && { ciphers: 'PSK' }),
    ...context,
    requestCert: verify,
    rejectUnauthorized: verify,
    ...(psk !== undefined && { pskCallback: (_socket, identity) => secretOf(psk, identity) }),
  };
  // Only to fail now, not when the first client comes.
  createServer(options);
  return options;
}

/** A callback that throws would take the process with it; here it only keeps the client out. */
function secretOf(psk: NonNullable<NbdServerTls['psk']>, identity: string): Uint8Array | null {
  try {
    return psk(identity) ?? null;
  } catch {
    return null;
  }
}

export interface TlsEvents {
  secured(socket: TLSSocket): void;
  failed(failure: unknown): void;
}

/**
 * Speaks TLS on a socket. A server that never listens does it, because only it checks a client's certificate;
 * whatever else than a ClientHello comes first makes it fail.
 */
export function startTls(socket: Duplex, options: TlsOptions, events: TlsEvents): void {
  const server = createServer({ ...options, handshakeTimeout: NEVER_MS, allowHalfOpen: true });
  server.on('secureConnection', (secured) => events.secured(secured));
  server.on('tlsClientError', (cause) => events.failed(ended('TLS could not be started', cause)));
  server.emit('connection', socket);
}

/** The connection's own limit covers the whole handshake, and is shorter. */
const NEVER_MS = 2 ** 31 - 1;
