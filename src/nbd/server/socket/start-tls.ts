import type { Duplex } from 'node:stream';
import { createServer, type SecureContextOptions, type TLSSocket, type TlsOptions } from 'node:tls';
import type { NbdServerTls } from '../../address/index.js';
import { pskKeys, pskOptions, x509Options } from '../../tls/index.js';
import { ended } from '../failures/index.js';

/** Whether clients may, or must, start TLS. */
export type OfferedTls = 'off' | 'on' | 'require';

export function offeredTls(tls: NbdServerTls | undefined): OfferedTls {
  return tls === undefined ? 'off' : (tls.mode ?? 'require');
}

/** What a server proves itself with, and knows its clients by. It survives the way into another thread. */
export type ServerKeys =
  | { readonly type: 'psk'; readonly keys: ReadonlyMap<string, Uint8Array> }
  | { readonly type: 'x509'; readonly options: SecureContextOptions; readonly verify: boolean };

/**
 * Reads keys and certificates, before anybody connects.
 *
 * @throws LacunaError ERR_NBD_TLS
 */
export async function readKeys(tls: NbdServerTls): Promise<ServerKeys> {
  if (tls.type === 'psk') return { type: 'psk', keys: await pskKeys(tls) };
  const options = await x509Options(tls, 'server');
  return { type: 'x509', options, verify: tls['verify-peer'] ?? options.ca !== undefined };
}

/** The keys as Node wants them. */
export function tlsOptions(keys: ServerKeys): TlsOptions {
  if (keys.type === 'x509') {
    return { ...keys.options, requestCert: keys.verify, rejectUnauthorized: keys.verify };
  }
  const pskCallback = (_socket: TLSSocket, identity: string) => keys.keys.get(identity) ?? null;
  return { ...pskOptions(), pskCallback };
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
  const server = createServer({ ...options, handshakeTimeout: NEVER_MS });
  // What TLS makes of it takes this over from it.
  socket.allowHalfOpen = false;
  server.on('secureConnection', (secured) => {
    // Before TLS stands, a client that ends its side has left; now it may still wait for answers.
    secured.allowHalfOpen = true;
    events.secured(secured);
  });
  server.on('tlsClientError', (cause) => events.failed(ended('TLS could not be started', cause)));
  server.emit('connection', socket);
}

/** The connection's own limit covers the whole handshake, and is shorter. */
const NEVER_MS = 2 ** 31 - 1;
