import type { Socket } from 'node:net';
import { descriptorOf } from '../nbd/server/index.js';
import { bindCalls, type Koffi } from '../util/index.js';

/**
 * Another file descriptor for what a socket holds, for another thread to own; undefined where there is none to be had,
 * because the client is gone, or the process has too many files open.
 */
export type CopyDescriptor = (socket: Socket) => number | undefined;

/** Undefined where the system cannot be asked. */
export function descriptorCopier(): CopyDescriptor | undefined {
  return bindCalls(declare);
}

/** Value of Linux. */
const F_DUPFD_CLOEXEC = 1030;

function declare(koffi: Koffi): CopyDescriptor {
  const fcntl = koffi.load(null).func('int fcntl(int, int, int)');
  return (socket) => {
    const fd = descriptorOf(socket);
    const copy = fd === undefined ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? undefined : copy;
  };
}
