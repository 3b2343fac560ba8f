import { readFile } from 'node:fs/promises';
import type { NbdServerTls } from '../block/index.js';
import { LacunaError } from '../errors/index.js';

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
    read(tlsCert),
    read(tlsKey),
    tlsCa === undefined ? undefined : read(tlsCa),
  ]);
  return { type: 'x509', cert, key, ...(ca !== undefined && { ca }) };
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const errno = code === undefined ? {} : { errno: code };
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: path, cause, ...errno });
  }
}
