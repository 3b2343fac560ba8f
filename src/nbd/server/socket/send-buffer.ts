import type { Socket } from 'node:net';
import { bindCalls, type Koffi } from '../../../util/index.js';
import { descriptorOf } from './socket-handle.js';

/**
 * Bytes of answers that the system holds for a client. A Unix socket has 208 KiB of it on Linux, less than one large
 * answer: server and client would fall asleep and wake each other for every part of it. The system may grant less.
 */
const SEND_BUFFER_BYTES = 512 * 1024;

/** Values of Linux. */
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

type SetSendBuffer = (fd: number) => void;

let binding: { set: SetSendBuffer | undefined } | undefined;

/** Gives a Unix socket a larger send buffer, where that is possible. Nothing else than speed depends on it. */
export function enlargeSendBuffer(socket: Socket): void {
  const fd = descriptorOf(socket);
  if (fd === undefined || isInternet(socket)) return;
  binding ??= { set: bindCalls(declare) };
  binding.set?.(fd);
}

/** TCP finds a size that fits the way to the client, as long as nobody sets one. */
function isInternet(socket: Socket): boolean {
  return 'address' in socket.address();
}

function declare(koffi: Koffi): SetSendBuffer {
  const setsockopt = koffi.load(null).func('int setsockopt(int, int, int, const int *, uint32_t)');
  const value = new Int32Array([SEND_BUFFER_BYTES]);
  return (fd) => void setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength);
}
