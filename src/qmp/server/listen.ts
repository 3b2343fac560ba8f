import type { Server } from 'node:net';
import { LacunaError } from '../../errors/index.js';
import { describeRefusal, listenForOwner, removeAbandoned } from '../../util/index.js';

/** Where a server listens. */
export type QmpListenAddress = QmpListenPath | QmpListenDescriptor;

/** A Unix socket that the server makes. */
export interface QmpListenPath {
  /** Where it is made. */
  readonly path: string;
}

/** A listening socket that somebody else has made and handed to this process, as systemd does. */
export interface QmpListenDescriptor {
  /** Its file descriptor, which then belongs to the server. */
  readonly fd: number;
}

/**
 * Listens. A Unix socket is made for its owner alone. One that nobody listens on any more is replaced.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function listenAt(server: Server, address: QmpListenAddress): Promise<void> {
  try {
    await listenForOwner(server, { ...address });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isLeft =
      code === 'EADDRINUSE' &&
      'path' in address &&
      (await removeAbandoned(address.path)) === 'free';
    if (!isLeft) throw cannotListen(address, error as NodeJS.ErrnoException);
    await listenForOwner(server, { ...address }).catch((again) => {
      throw cannotListen(address, again);
    });
  }
}

function cannotListen(address: QmpListenAddress, cause: NodeJS.ErrnoException): LacunaError {
  const { code: errno = '' } = cause;
  const device = 'path' in address ? address.path : `descriptor ${address.fd}`;
  const what = `cannot listen on ${device}`;
  const message =
    errno === 'EADDRINUSE'
      ? `${what}: it is there already, and in use, or no socket: choose another path`
      : describeRefusal(what, errno, { making: true });
  return new LacunaError('ERR_DEVICE_OPEN', message, { device, cause, errno });
}
