import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LacunaError } from '../../../errors/index.js';
import { describeRefusal, listenForOwner, removeAbandoned } from '../../../util/index.js';
import type { WatchAddress } from './address.js';

/**
 * Listens. A Unix socket is made for its owner alone; one that nobody listens on any more is replaced.
 *
 * @returns the address, with the port that the system has chosen where 0 was asked for
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function listenAt(server: Server, address: WatchAddress): Promise<WatchAddress> {
  try {
    if (address.type === 'unix') await removeAbandoned(address.path);
    const { type: _, ...where } = address;
    await listenForOwner(server, where);
  } catch (error) {
    throw cannotListen(address, error as NodeJS.ErrnoException);
  }
  if (address.type === 'unix') return address;
  return { ...address, port: (server.address() as AddressInfo).port };
}

function cannotListen(address: WatchAddress, cause: NodeJS.ErrnoException): LacunaError {
  const where = address.type === 'unix' ? address.path : `${address.host}:${address.port}`;
  const { code: errno = '' } = cause;
  const what = `cannot listen on ${where}`;
  const message =
    errno === 'EADDRINUSE'
      ? `${what}: it is in use: choose another ${address.type === 'unix' ? 'path' : 'port'}`
      : describeRefusal(what, errno, { making: true });
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: where, cause, errno });
}
