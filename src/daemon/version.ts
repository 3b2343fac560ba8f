import { readFileSync } from 'node:fs';
import type { QmpVersion } from '../qmp/index.js';

/** The version of QEMU whose commands the daemon has, so far as it has them. */
export const QEMU_VERSION: QmpVersion = {
  major: 10,
  minor: 0,
  micro: 0,
  package: `lacuna ${ownVersion()}`,
};

function ownVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
