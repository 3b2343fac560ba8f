/**
 * The keys and certificates that TLS is told to use, read and tried before anybody connects. Apart from the addresses
 * that name them, because Node's TLS takes long to load, and most commands read addresses at most.
 */
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { LacunaError } from '../../errors/index.js';
import { readSmallFile } from '../../util/index.js';
import type { NbdTls, NbdTlsPsk, NbdTlsX509 } from '../address/index.js';

/** The names of an endpoint's own files begin with this. */
export type Endpoint = 'client' | 'server';

/** What TLS could not do as it was asked; nothing was sent without it. */
export function tlsFailure(why: string, cause?: unknown): LacunaError {
  const { code } = (cause ?? {}) as { code?: unknown };
  const errno = typeof code === 'string' ? { errno: code } : {};
  return new LacunaError('ERR_NBD_TLS', why, { ...errno, cause });
}

/**
 * What a context for certificates is made of; the caller says whether the peer must have one.
 *
 * @throws LacunaError ERR_NBD_TLS when a file cannot be read or is no certificate or key.
 */
export async function x509Options(
  tls: Omit<NbdTlsX509, 'hostname'>,
  endpoint: Endpoint,
): Promise<SecureContextOptions> {
  const { certificates: folder, ca, cert, key } = tls;
  const given = { ca, cert, key };
  if (folder === undefined) return secureOptions(given);
  return secureOptions(await readFolder(folder, endpoint, given), ` in ${folder}`);
}

/**
 * What a context for pre-shared keys is made of. Not the suites that take a certificate as well (nobody would
 * look at it), and none without encryption.
 */
export function pskOptions(): SecureContextOptions {
  return secureOptions({ ciphers: 'PSK:!kRSAPSK:!eNULL' });
}

/**
 * All keys that a peer may prove itself with, by username.
 *
 * @throws LacunaError ERR_NBD_TLS when the file cannot be read or a key is none.
 */
export async function pskKeys(tls: NbdTlsPsk): Promise<ReadonlyMap<string, Uint8Array>> {
  const { username, key, 'psk-file': file } = tls;
  if (key !== undefined) return new Map([[username ?? '', hexKey(key, 'the pre-shared key')]]);
  if (file === undefined)
    throw tlsFailure(
      'a pre-shared key is missing: name its file (tls-psk-file in a URI), or the key',
    );
  const lines = (await read(file)).toString('utf8').split('\n');
  const keys = new Map<string, Uint8Array>();
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.lastIndexOf(':');
    if (colon < 1)
      throw tlsFailure(`${file}:${i + 1} is no line USERNAME:KEY, as psktool makes them`);
    keys.set(line.slice(0, colon), hexKey(line.slice(colon + 1).trim(), `${file}:${i + 1}`));
  }
  if (keys.size === 0) throw tlsFailure(`${file} has no line USERNAME:KEY`);
  return keys;
}

/** Reads keys and certificates only to see that they can be used. @throws LacunaError ERR_NBD_TLS */
export async function tryCredentials(tls: NbdTls, endpoint: Endpoint): Promise<void> {
  if (tls.type === 'psk') await pskKeys(tls);
  else await x509Options(tls, endpoint);
}

/** The longest key that Node takes; its own message about a longer one would show how that begins. */
const MOST_KEY_BYTES = 512;

/** Says where a key is wrong, but never what it is. */
function hexKey(text: string, where: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})+$/i.test(text))
    throw tlsFailure(`${where}: the key is not written in hexadecimal`);
  if (text.length <= 2 * MOST_KEY_BYTES) return Buffer.from(text, 'hex');
  throw tlsFailure(`${where}: the key is longer than ${MOST_KEY_BYTES} bytes`);
}

const PEM_NAMES = { ca: 'authority', cert: 'certificate', key: 'private key' } as const;

type Pem = Pick<SecureContextOptions, 'ca' | 'cert' | 'key'>;

async function readFolder(folder: string, endpoint: Endpoint, given: Pem): Promise<Pem> {
  // One after another: of several that are missing, the first is told.
  const cert = given.cert ?? (await readOwn(join(folder, `${endpoint}-cert.pem`), endpoint));
  const key = given.key ?? (await readOwn(join(folder, `${endpoint}-key.pem`), endpoint));
  return { ca: given.ca ?? (await read(join(folder, 'ca-cert.pem'))), cert, key };
}

/** A server cannot be without its own certificate; a client can, where the server does not ask for one. */
async function readOwn(path: string, endpoint: Endpoint): Promise<Buffer | undefined> {
  try {
    return await read(path);
  } catch (error) {
    if (endpoint === 'client' && (error as LacunaError).errno === 'ENOENT') return undefined;
    throw error;
  }
}

function read(path: string): Promise<Buffer> {
  return readSmallFile(path, { code: 'ERR_NBD_TLS', what: 'the file' });
}

/**
 * TLS 1.2 at least, whatever Node was told on its command line. What is of no use is found now.
 *
 * @param where the certificates come from, for people
 */
function secureOptions(given: SecureContextOptions, where = ''): SecureContextOptions {
  const options = { ...given, minVersion: 'TLSv1.2' } as const;
  const { cert, key } = options;
  if ((cert === undefined) !== (key === undefined)) {
    throw tlsFailure(
      `a certificate and its key belong together: one of the two is missing${where}`,
    );
  }
  // OpenSSL passes over these as if they had not been given.
  const empty = (['ca', 'cert', 'key'] as const).find((name) => options[name]?.length === 0);
  if (empty !== undefined) throw tlsFailure(`the ${PEM_NAMES[empty]}${where} is empty`);
  try {
    // OpenSSL passes over an authority that is none, and then nobody is trusted for a reason nobody sees.
    if (options.ca !== undefined) new X509Certificate(options.ca as string | Buffer);
    createSecureContext(options);
    return options;
  } catch (cause) {
    const why = (cause as Error).message;
    const advice = 'see that each is a PEM text, and that the key is that of the certificate';
    throw tlsFailure(`the certificates${where} cannot be used (${why}): ${advice}`, cause);
  }
}
