import { InvalidArgumentError } from 'commander';
import { LacunaError } from '../../../errors/index.js';
import type { NbdServerAddress } from '../../../serve/index.js';
import { removeAbandoned } from '../../../util/index.js';

const DEFAULT_PORT = 10809;

/** `HOST:PORT`, `HOST`, `[IPv6]:PORT`; port 0 lets the system choose. */
export function parseBindAddress(text: string): NbdServerAddress {
  if (/^\d+$/.test(text)) {
    const hint = `say localhost:${text}, or 0.0.0.0:${text} for all addresses of this machine`;
    throw new InvalidArgumentError(`It is a port without a host: ${hint}.`);
  }
  const match = /^(?:\[([0-9a-f:.]+(?:%[^\]]+)?)\]|([^:[\]]+))(?::(\d+))?$/i.exec(text);
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (match === null) {
    throw new InvalidArgumentError(
      'It must look like HOST:PORT, with an IPv6 address in brackets.',
    );
  }
  if (port > 65535) {
    throw new InvalidArgumentError(`A port is a number from 0 to 65535, not ${match[3]}.`);
  }
  return { type: 'inet', host: match[1] ?? match[2], port };
}

/** Whether only this machine can connect. */
export function isLoopback(address: NbdServerAddress): boolean {
  if (address.type === 'unix') return true;
  return /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i.test(address.host);
}

/**
 * Removes a socket that a server which died left behind.
 *
 * @throws LacunaError ERR_DEVICE_OPEN when somebody listens on it, or it is no socket.
 */
export async function removeDeadSocket(path: string): Promise<void> {
  const place = await removeAbandoned(path);
  const refuse = (why: string) =>
    new LacunaError('ERR_DEVICE_OPEN', `${path} ${why}`, { device: path });
  if (place === 'not a socket') throw refuse('exists and is not a socket: choose another path');
  if (place === 'in use') throw refuse('is in use by another server: choose another path');
}
