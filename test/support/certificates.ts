import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const openssl = (args: readonly string[], cwd: string) =>
  promisify(execFile)('openssl', args, { cwd });

/**
 * An authority, and certificates of it for a server called localhost and for a client, in a folder, under the names
 * that libnbd and QEMU look for.
 */
export async function makeCertificates(folder: string): Promise<void> {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout'];
  const subject = (name: string) => ['-subj', `/CN=${name}`];
  const authority = [...key, 'ca-key.pem', '-out', 'ca-cert.pem', ...subject('Test authority')];
  await openssl(['req', '-x509', '-days', '2', ...authority], folder);
  await writeFile(join(folder, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  for (const [role, name] of [
    ['server', 'localhost'],
    ['client', 'a client'],
  ]) {
    await openssl(['req', ...key, `${role}-key.pem`, '-out', 'request', ...subject(name)], folder);
    const from = ['-req', '-in', 'request', '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem'];
    const to = ['-CAcreateserial', '-days', '2', '-extfile', 'names', '-out', `${role}-cert.pem`];
    await openssl(['x509', ...from, ...to], folder);
  }
}
