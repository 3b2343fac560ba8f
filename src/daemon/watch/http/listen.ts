import { lstatSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { LacunaError } from '../../../errors/index.js';
import { describeRefusal } from '../../../util/index.js';
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
    await begin(server, address);
  } catch (error) {
    if (address.type === 'inet' || !(await isAbandoned(address.path, error))) {
      throw cannotListen(address, error as NodeJS.ErrnoException);
    }
    unlinkSync(address.path);
    await begin(server, address).catch((again) => {
      throw cannotListen(address, again);
    });
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

/** Whether a path is a socket whose server is gone. */
async function isAbandoned(path: string, error: unknown): Promise<boolean> {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return false;
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  return new Promise((resolve) => {
    const socket = connect({ path });
    const tell = (isLeft: boolean) => {
      socket.destroy();
      resolve(isLeft);
    };
    socket.once('connect', () => tell(false));
    socket.once('error', ({ code }: NodeJS.ErrnoException) => tell(code === 'ECONNREFUSED'));
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
