import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LacunaError } from '../../../errors/index.js';
import { describeRefusal } from '../../../util/index.js';
import { removeAbandoned } from '../../core/index.js';
import type { WatchAddress } from './address.js';

/** A Unix socket is its owner's alone. */
const OTHERS_NOTHING = 0o177;

/**
 * Listens. A Unix socket that nobody listens on any more is replaced.
 *
 * @returns the address, with the port that the system has chosen where 0 was asked for
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function listenAt(server: Server, address: WatchAddress): Promise<WatchAddress> {
  try {
    if (address.type === 'unix') await removeAbandoned(address.path);
    await begin(server, address);
  } catch (error) {
    throw cannotListen(address, error as NodeJS.ErrnoException);
  }
  if (address.type === 'unix') return address;
  return { ...address, port: (server.address() as AddressInfo).port };
}

function begin(server: Server, address: WatchAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const done = () => {
      server.off('error', reject);
      resolve();
    };
    if (address.type === 'inet') {
      server.listen({ host: address.host, port: address.port }, done);
      return;
    }
    // It is bound in this call. A mode that is set afterwards would leave a moment in which others may connect.
    const before = process.umask(OTHERS_NOTHING);
    try {
      server.listen({ path: address.path }, done);
    } finally {
      process.umask(before);
    }
  });
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
