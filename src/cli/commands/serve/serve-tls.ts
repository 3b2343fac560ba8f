import type { NbdServerTls } from '../../../serve/index.js';
import { readText } from '../../text/index.js';

export interface TlsFlags {
  tlsCert?: string;
  tlsKey?: string;
  tlsCa?: string;
  tlsPsk?: string;
}

/** How a server is to speak TLS; undefined where nothing was said of it. */
export async function tlsOf(flags: TlsFlags): Promise<NbdServerTls | undefined> {
  const { tlsCert, tlsKey, tlsCa, tlsPsk } = flags;
  const certificates = tlsCert !== undefined || tlsKey !== undefined || tlsCa !== undefined;
  if (tlsPsk !== undefined) {
    if (certificates) throw new TypeError('--tls-psk excludes --tls-cert, --tls-key and --tls-ca');
    return { type: 'psk', 'psk-file': tlsPsk };
  }
  if (!certificates) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new TypeError('TLS needs both --tls-cert and --tls-key');
  }
  const [cert, key, ca] = await Promise.all([
    readText(tlsCert, '--tls-cert'),
    readText(tlsKey, '--tls-key'),
    tlsCa === undefined ? undefined : readText(tlsCa, '--tls-ca'),
  ]);
  return { type: 'x509', cert, key, ...(ca !== undefined && { ca }) };
}
