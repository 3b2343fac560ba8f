import { lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { LacunaError } from '../../errors/index.js';
import { describeRefusal } from '../../util/index.js';

/** Where a server listens: a Unix socket that it makes, or one that was handed to the process and listens already. */
export type QmpListenAddress = { readonly path: string } | { readonly fd: number };

/** Read and write for its owner, nothing for others. */
const OTHERS_NOTHING = 0o177;

/**
 * Listens. A Unix socket is made for its owner alone. One that nobody listens on any more is replaced.
 *
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function listenAt(server: Server, address: QmpListenAddress): Promise<void> {
  try {
    await begin(server, address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isLeft = code === 'EADDRINUSE' && 'path' in address && (await isAbandoned(address.path));
    if (!isLeft) throw cannotListen(address, error as NodeJS.ErrnoException);
    unlinkSync(address.path);
    await begin(server, address).catch((again) => {
      throw cannotListen(address, again);
    });
  }
}

function begin(server: Server, address: QmpListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // It is bound in this call. A mode that is set afterwards would leave a moment in which others may connect.
    const before = 'path' in address ? process.umask(OTHERS_NOTHING) : undefined;
    try {
      server.listen({ ...address }, () => {
        server.off('error', reject);
        resolve();
      });
    } catch (error) {
      // A descriptor that is no socket.
      reject(error);
    } finally {
      if (before !== undefined) process.umask(before);
    }
  });
}

/** Whether a path is a socket whose server is gone. */
async function isAbandoned(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  return new Promise((resolve) => {
    const socket = connect({ path });
    const tell = (isLeft: boolean) => {
      socket.destroy();
      resolve(isLeft);
    };
    socket.once('connect', () => tell(false));
    socket.once('error', (error: NodeJS.ErrnoException) => tell(error.code === 'ECONNREFUSED'));
  });
}

function cannotListen(address: QmpListenAddress, cause: NodeJS.ErrnoException): LacunaError {
  const where = 'path' in address ? address.path : `file descriptor ${address.fd}`;
  const { code: errno = '' } = cause;
  const what = `cannot listen on ${where}`;
  const message =
    errno === 'EADDRINUSE'
      ? `${what}: it is there already, and in use, or no socket: choose another path`
      : describeRefusal(what, errno, { making: true });
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: where, cause, errno });
}
