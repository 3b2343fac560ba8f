import { lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';

/** Removes a socket that a program has left behind; one that somebody listens on, and other files, stay. */
export async function removeAbandoned(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  const isLeft = await new Promise<boolean>((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'ECONNREFUSED'));
  });
  if (isLeft) unlinkSync(path);
}
