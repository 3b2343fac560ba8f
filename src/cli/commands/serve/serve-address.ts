import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { InvalidArgumentError } from 'commander';
import { LacunaError } from '../../../errors/index.js';
import type { NbdServerAddress } from '../../../serve/index.js';

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
  const stats = await lstat(path).catch(() => undefined);
  if (stats === undefined) return;
  const refuse = (why: string) =>
    new LacunaError('ERR_DEVICE_OPEN', `${path} ${why}`, { device: path });
  if (!stats.isSocket()) throw refuse('exists and is not a socket: choose another path');
  if (await isAlive(path)) throw refuse('is in use by another server: choose another path');
  // Nothing else that has come in its place meanwhile.
  const now = await lstat(path).catch(() => undefined);
  if (now?.isSocket() && now.ino === stats.ino && now.dev === stats.dev) await unlink(path);
}

/** Anything but a clear "nobody listens" counts as alive: what is not ours is not removed on a guess. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}
