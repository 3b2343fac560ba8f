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
    const secrets = parseSecrets(await read(tlsPsk), tlsPsk);
    return { psk: (identity) => secrets.get(identity) };
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
  return { context: { cert, key, ...(ca !== undefined && { ca }) } };
}

/** Lines of `IDENTITY:HEX`, as psktool and nbdkit have them; empty lines and comments are skipped. */
export function parseSecrets(text: string, path: string): ReadonlyMap<string, Uint8Array> {
  const secrets = new Map<string, Uint8Array>();
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = /^([^:]+):((?:[0-9a-f]{2})+)\s*$/i.exec(line);
    // The line itself may be a secret, so only its number is told.
    if (match === null) throw new TypeError(`${path}, line ${i + 1}: not IDENTITY:HEX`);
    secrets.set(match[1], Buffer.from(match[2], 'hex'));
  }
  if (secrets.size === 0) throw new TypeError(`${path} has no line of IDENTITY:HEX`);
  return secrets;
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
