import { parseNbdUri } from '../../nbd/address/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { DiskChoice } from '../../qemu/index.js';

const NODE = 'node:';

/** A disk of a running machine by its device, or `node:NAME` where no device has it. */
export function diskNamed(text: string): DiskChoice {
  return text.startsWith(NODE) ? { node: text.slice(NODE.length) } : text;
}

/**
 * A bitmap of a running machine: `DISK:BITMAP`, or `node:NODE:BITMAP`.
 *
 * @throws TypeError
 */
export function bitmapNamed(flag: string, text: string): { disk: DiskChoice; name: string } {
  const colon = text.indexOf(':', text.startsWith(NODE) ? NODE.length : 0);
  const [disk, name] = [text.slice(0, Math.max(colon, 0)), text.slice(colon + 1)];
  if (disk !== '' && disk !== NODE && name !== '') return { disk: diskNamed(disk), name };
  throw new TypeError(
    `${flag} takes DISK:BITMAP or node:NODE:BITMAP, such as vda:backup0, not ${text}`,
  );
}

/**
 * Where an NBD server listens, without an export.
 *
 * @throws TypeError
 */
export function serverAddress(uri: string): NbdServerAddress {
  const { server, export: name, tls } = parseNbdUri(uri);
  if (tls === undefined && name === '') return server;
  throw new TypeError(
    `${uri} must say only where the server listens: nbd://HOST:PORT or nbd+unix:///?socket=PATH`,
  );
}
