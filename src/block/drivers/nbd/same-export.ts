/** One export has many names: links to a socket, names and addresses of a host. */
import { lookup } from 'node:dns/promises';
import { resolve } from 'node:path';
import { identityOf } from '../../../files/index.js';
import type { NbdDescription } from './description.js';

/** Whether two descriptions are known to lead to one export of one server. */
export async function isSameExport(a: NbdDescription, b: NbdDescription): Promise<boolean> {
  if ((a.export ?? '') !== (b.export ?? '')) return false;
  return await isSameServer(a.server, b.server);
}

async function isSameServer(
  a: NbdDescription['server'],
  b: NbdDescription['server'],
): Promise<boolean> {
  if (a.type === 'unix' && b.type === 'unix') {
    if (resolve(a.path) === resolve(b.path)) return true;
    const identity = identityOf(a.path);
    return identity !== undefined && identity === identityOf(b.path);
  }
  if (a.type !== 'inet' || b.type !== 'inet' || a.port !== b.port) return false;
  if (a.host === b.host) return true;
  const [ours, theirs] = [await addressesOf(a.host), await addressesOf(b.host)];
  return ours.some((address) => theirs.includes(address));
}

async function addressesOf(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.map(({ address }) => address);
}
