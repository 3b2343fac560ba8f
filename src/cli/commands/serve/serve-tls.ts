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
  // One after another: of several that are missing, the first is told.
  const cert = await readText(tlsCert, '--tls-cert');
  const key = await readText(tlsKey, '--tls-key');
  const ca = tlsCa === undefined ? undefined : await readText(tlsCa, '--tls-ca');
  return { type: 'x509', cert, key, ...(ca !== undefined && { ca }) };
}
