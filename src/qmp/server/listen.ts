import { lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { LacunaError } from '../../errors/index.js';
import { describeRefusal } from '../../util/index.js';

/** Where a server listens. */
export interface QmpListenAddress {
  /** The Unix socket that it makes. */
  readonly path: string;
}

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
    const isLeft = code === 'EADDRINUSE' && (await isAbandoned(address.path));
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
    const before = process.umask(OTHERS_NOTHING);
    try {
      server.listen({ ...address }, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(before);
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

function cannotListen({ path }: QmpListenAddress, cause: NodeJS.ErrnoException): LacunaError {
  const { code: errno = '' } = cause;
  const what = `cannot listen on ${path}`;
  const message =
    errno === 'EADDRINUSE'
      ? `${what}: it is there already, and in use, or no socket: choose another path`
      : describeRefusal(what, errno, { making: true });
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: path, cause, errno });
}
