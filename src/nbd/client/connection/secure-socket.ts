import { isIP, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect,
  createSecureContext,
  type TLSSocket,
} from 'node:tls';
import type { LacunaError } from '../../../errors/index.js';
import type { NbdServerAddress, NbdTls, NbdTlsPsk } from '../../address/index.js';
import { pskKeys, pskOptions, tlsFailure, x509Options } from '../../tls/index.js';
import { disconnected, violation } from '../failures/index.js';

/** Puts TLS over a socket on which the server has agreed to it. */
export type Securer = (socket: Socket) => TLSSocket;

/**
 * Reads keys and certificates, before a connection is made, so that it does not wait for them.
 *
 * @throws LacunaError ERR_NBD_TLS
 */
export async function prepareTls(tls: NbdTls, server: NbdServerAddress): Promise<Securer> {
  // Said always: NODE_TLS_REJECT_UNAUTHORIZED holds where an option is missing.
  const strict = { rejectUnauthorized: true };
  if (tls.type === 'psk') {
    const options = await pskConnection(tls);
    return (socket) => connect({ ...strict, ...options, socket });
  }
  const name = tls.hostname ?? (server.type === 'inet' ? server.host : 'localhost');
  const options: ConnectionOptions = {
    secureContext: createSecureContext(await x509Options(tls, 'client')),
    rejectUnauthorized: tls['verify-peer'] ?? true,
    checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate),
    // "Literal IPv4 and IPv6 addresses are not permitted in HostName" (RFC 6066, section 3).
    servername: isIP(name) === 0 ? name : '',
  };
  return (socket) => connect({ ...strict, ...options, socket });
}

async function pskConnection(tls: NbdTlsPsk): Promise<ConnectionOptions> {
  const keys = await pskKeys(tls);
  const identity = tls.username ?? (keys.size === 1 ? [...keys.keys()][0] : '');
  const psk = keys.get(identity);
  if (psk === undefined || identity === '') {
    const which = identity === '' ? 'whose key is to be used is not said' : `no key of ${identity}`;
    throw tlsFailure(`${which}: name the user of the pre-shared key`);
  }
  return {
    secureContext: createSecureContext(pskOptions()),
    pskCallback: () => ({ psk, identity }),
    checkServerIdentity: (_, certificate) => {
      // With TLS 1.3 a server may answer an offered key with a certificate, which proves nothing of the key.
      if (Object.keys(certificate ?? {}).length === 0) return undefined;
      return new Error('the server used a certificate and not the pre-shared key');
    },
  };
}

/** Errors of OpenSSL that mean: what came is no TLS at all. */
const NOT_TLS =
  /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE|BAD_RECORD_TYPE|HTTP_REQUEST/;

/** Why TLS did not come about, or ended before anything was said over it. */
export function explainTls(cause: Error & { code?: string; syscall?: string }): LacunaError {
  const { code = '', message, syscall } = cause;
  if (code === 'ECONNRESET' || syscall !== undefined) {
    const why = `the connection was lost over TLS (${message}); the server may not accept`;
    return disconnected(`${why} the key or certificate`, cause);
  }
  if (!code.includes('ALERT') && NOT_TLS.test(code)) {
    return violation(`it agreed to TLS and then sent something else (${code})`);
  }
  const why = `no secure connection (${reasonOf(code, message)})`;
  return tlsFailure(code.includes('HANDSHAKE_FAILURE') ? `${why}; ${OTHER_PROOF}` : why, cause);
}

/** The server wanted a key where a certificate was meant, as a rule, and does not say so. */
const OTHER_PROOF =
  'the server may want the other kind of proof: nbds://USER@...?tls-psk-file=FILE for a pre-shared key, ' +
  'tls-certificates=FOLDER for certificates';

/** OpenSSL puts numbers, files and lines into its messages; its code says the same in words. */
function reasonOf(code: string, message: string): string {
  if (!code.startsWith('ERR_SSL')) return message;
  return code
    .replace(/^ERR_SSL_/, '')
    .replaceAll('_', ' ')
    .toLowerCase();
}
