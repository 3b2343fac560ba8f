import type { NbdServerAddress } from './uri.js';

/** Bytes of the longest path that a Unix socket can have, without the NUL behind it (`sun_path`). */
const LONGEST_PATH = process.platform === 'linux' ? 107 : 103;

/**
 * Checks where a server listens, before a socket is made: Node cuts a longer path, and a path or host at a NUL, and
 * takes an empty path for a TCP port of this machine, so that somebody else would be talked to.
 *
 * @throws TypeError, RangeError
 */
export function checkServerAddress(server: NbdServerAddress): void {
  checkAddress(server);
  if (server.type === 'inet') checkPort(server.port, 1);
}

/** A listening socket that somebody else has made and handed to this process, as systemd does. */
export interface NbdListenDescriptor {
  /** Tells it from the address of a socket that is to be made. */
  readonly type: 'fd';
  /** Its file descriptor, which then belongs to the server. */
  readonly fd: number;
}

/** Where a server may listen. */
export type NbdListenAddress = NbdServerAddress | NbdListenDescriptor;

/** The same for those who listen, for whom the system may choose a port. */
export function checkListenAddress(address: NbdListenAddress): void {
  if (address.type === 'fd') {
    if (Number.isInteger(address.fd) && address.fd >= 0) return;
    throw new RangeError(`a file descriptor is a whole number, not ${address.fd}`);
  }
  checkAddress(address);
  if (address.type === 'inet') checkPort(address.port, 0);
}

function checkAddress(address: NbdServerAddress): void {
  if (address.type === 'unix') checkSocketPath(address.path);
  else checkWhole('a host', address.host);
}

/**
 * Checks the path of a Unix socket.
 *
 * @throws TypeError, RangeError
 */
function checkSocketPath(path: string): void {
  if (path === '') throw new TypeError('the path of a Unix socket is empty');
  checkWhole('the path of a Unix socket', path);
  const bytes = Buffer.byteLength(path);
  if (bytes <= LONGEST_PATH || process.platform === 'win32') return;
  throw new RangeError(
    `the path of a Unix socket has at most ${LONGEST_PATH} bytes, not ${bytes}: ${path}`,
  );
}

/** The system ends a text where its first NUL stands. */
function checkWhole(what: string, text: string): void {
  if (typeof text !== 'string') throw new TypeError(`${what} must be a text, not ${text}`);
  if (!text.includes('\0')) return;
  throw new TypeError(`${what} contains a NUL character: ${JSON.stringify(text)}`);
}

function checkPort(port: number, least: number): void {
  if (Number.isInteger(port) && port >= least && port <= 65535) return;
  throw new RangeError(`a port is a number from ${least} to 65535, not ${port}`);
}
