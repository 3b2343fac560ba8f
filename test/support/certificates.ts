import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { noise } from './noise.js';
import { run } from './peers.js';

/** A certificate to be made: who it is for, and until when, from today. */
export interface CertificateOptions {
  readonly name: 'server' | 'client';
  /** As OpenSSL writes them. Default `DNS:localhost,IP:127.0.0.1`. */
  readonly names?: string;
  /** Below 0: it has expired. */
  readonly days?: number;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/**
 * A folder with an authority of its own and the files that QEMU, nbdkit and libnbd look for: `ca-cert.pem`,
 * `server-cert.pem`, `server-key.pem`, and the same for the client.
 */
export async function makeCertificates(
  folder: string,
  certificates: readonly CertificateOptions[] = [{ name: 'server' }, { name: 'client' }],
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const file = (name: string) => join(folder, name);
  await run('openssl', [
    ...['req', '-x509', ...NEW_KEY, '-days', '2', '-subj', '/CN=Lacuna test authority'],
    ...['-addext', 'keyUsage=critical,keyCertSign'],
    ...['-keyout', file('ca-key.pem'), '-out', file('ca-cert.pem')],
  ]);
  for (const options of certificates) await sign(file, options);
  return folder;
}

async function sign(
  file: (name: string) => string,
  { name, names = 'DNS:localhost,IP:127.0.0.1', days = 2 }: CertificateOptions,
): Promise<void> {
  const request = file(`${name}.csr`);
  const key = file(`${name}-key.pem`);
  await run('openssl', [
    ...['req', '-new', ...NEW_KEY, '-subj', `/CN=${name}`],
    ...['-keyout', key, '-out', request],
  ]);
  const extensions = file(`${name}.ext`);
  const usage = `keyUsage=critical,digitalSignature\nextendedKeyUsage=${name}Auth`;
  await writeFile(extensions, `subjectAltName=${names}\n${usage}\nbasicConstraints=CA:FALSE\n`);
  await run('openssl', [
    ...['x509', '-req', '-in', request, '-extfile', extensions, '-days', `${days}`],
    ...['-CA', file('ca-cert.pem'), '-CAkey', file('ca-key.pem'), '-CAcreateserial'],
    ...['-out', file(`${name}-cert.pem`)],
  ]);
}

/** A folder with a file of pre-shared keys, named as QEMU wants it; returns the file. */
export async function makePskFile(folder: string, ...users: readonly string[]): Promise<string> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, 'keys.psk');
  const lines = users.map((user) => `${user}:${noise(32).toString('hex')}\n`);
  await writeFile(path, lines.join(''), { mode: 0o600 });
  return path;
}
