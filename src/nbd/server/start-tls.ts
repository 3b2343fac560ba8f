import type { Duplex } from 'node:stream';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { type NbdServerTls, pskKeys, pskOptions, x509Options } from '../tls.js';
import { ended } from './failures.js';

/**
 * Reads keys and certificates, before anybody connects.
 *
 * @throws LacunaError ERR_NBD_TLS
 */
export async function prepareTls(tls: NbdServerTls): Promise<TlsOptions> {
  if (tls.type === 'psk') {
    const keys = await pskKeys(tls);
    const pskCallback = (_socket: TLSSocket, identity: string) => keys.get(identity) ?? null;
    return { ...pskOptions(), pskCallback };
  }
  const options = await x509Options(tls, 'server');
  const verify = tls['verify-peer'] ?? options.ca !== undefined;
  return { ...options, requestCert: verify, rejectUnauthorized: verify };
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
