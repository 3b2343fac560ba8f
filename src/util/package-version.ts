import { readFileSync } from 'node:fs';
import { ownFile } from './own-file.js';

/**
 * The version of this package, also in a program that has taken the code in.
 *
 * @throws LacunaError ERR_PACKAGE_FILE
 */
export function packageVersion(): string {
  // Only files below dist are looked for; the manifest lies beside that folder.
  const manifest = new URL('../../package.json', ownFile('wasm/kernels.scalar.wasm'));
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
