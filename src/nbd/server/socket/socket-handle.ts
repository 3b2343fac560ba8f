/** What a socket of Node keeps behind its public face: its handle, and the file descriptor of that. */
import type { Socket } from 'node:net';

interface Handled {
  _handle: { readonly fd?: number } | null;
}

/** The file descriptor; undefined where there is none any more, or the system has no such thing. */
export function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as unknown as Handled)._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}

/** Takes the handle out, for another socket, and ends this one. */
export function takeHandle(socket: Socket): object | null {
  const handled = socket as unknown as Handled;
  const handle = handled._handle;
  handled._handle = null;
  socket.destroy();
  return handle;
}
