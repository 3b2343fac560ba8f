import { lstatSync, unlinkSync } from 'node:fs';
import type { ListenOptions, Server } from 'node:net';

/** What is at a path where a socket is to be made. */
export type SocketPlace = 'free' | 'in use' | 'not a socket';

/**
 * Removes a socket that a program has left behind. One that somebody listens on, and other files, stay.
 *
 * @returns what is there then
 */
export async function removeAbandoned(path: string): Promise<SocketPlace> {
  const found = lookAt(path);
  if (found === undefined) return 'free';
  if (!found.isSocket()) return 'not a socket';
  if (await isAlive(path)) return 'in use';
  // Nothing else that has come in its place meanwhile. A file system gives the number of a file that is gone to the next one.
  const now = lookAt(path);
  if (now === undefined) return 'free';
  if (now.ino !== found.ino || now.dev !== found.dev || now.ctimeMs !== found.ctimeMs)
    return 'in use';
  unlinkSync(path);
  return 'free';
}

/** Where a server listens: at a path, at an address, or on a socket that listens already. */
type ListenPlace = Pick<ListenOptions, 'path' | 'host' | 'port'> & { readonly fd?: number };

/** Listens; a Unix socket is made for its owner alone. @throws what listening throws */
export function listenForOwner(server: Server, place: ListenPlace): Promise<void> {
  const address = place as ListenOptions;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const done = () => {
      server.off('error', reject);
      resolve();
    };
    if (address.path === undefined) {
      server.listen(address, done);
      return;
    }
    // It is bound in this call. A mode that is set afterwards would leave a moment in which others may connect.
    const before = process.umask(OTHERS_NOTHING);
    try {
      server.listen(address, done);
    } finally {
      process.umask(before);
    }
  });
}

/** Read and write for its owner, nothing for others. */
const OTHERS_NOTHING = 0o177;

function lookAt(path: string) {
  try {
    return lstatSync(path);
  } catch {
    return undefined;
  }
}

/** Anything but a clear "nobody listens" counts as alive: what is not ours is not removed on a guess. */
async function isAlive(path: string): Promise<boolean> {
  // Most commands make no socket, and need not load this.
  const { connect } = await import('node:net');
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}
