import { checkGiven, optionCheck } from '../../util/index.js';

/** A Unix socket. */
export interface QmpUnixAddress {
  /** Where the socket is. */
  readonly path: string;
}

/** A TCP port of this machine. */
export interface QmpTcpAddress {
  /** `localhost`, `127.0.0.1` or `::1`. */
  readonly host: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** Where a monitor or a guest agent listens. */
export type QmpAddress = QmpUnixAddress | QmpTcpAddress;

/** Bytes of the longest path that a Unix socket can have, without the NUL behind it (`sun_path`). */
const LONGEST_PATH = process.platform === 'linux' ? 107 : 103;

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/;

const checkUnix = optionCheck<QmpUnixAddress>({ path: { needed: 'where the socket is' } });
const checkTcp = optionCheck<QmpTcpAddress>({
  host: { needed: 'localhost, 127.0.0.1 or ::1' },
  port: { needed: 'a number from 1 to 65535' },
});

/**
 * Checks an address before a socket is made. Node cuts a path that is too long, and takes an empty one for a TCP port.
 *
 * @throws TypeError, RangeError
 */
export function checkAddress(owner: string, address: QmpAddress): void {
  checkGiven(owner, 'address', address, 'the path of a socket, or a host and a port');
  if ('host' in address) checkTcpAddress(owner, address);
  else checkPath(owner, address);
}

/** How messages name it. */
export function nameOf(address: QmpAddress): string {
  return 'path' in address ? address.path : `${address.host}:${address.port}`;
}

function checkTcpAddress(owner: string, address: QmpTcpAddress): void {
  checkTcp(`${owner}: address`, address);
  const { host, port } = address;
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new RangeError(`${owner}: a port is a number from 1 to 65535, not ${port}`);
  }
  if (LOOPBACK.test(host)) return;
  throw new RangeError(
    `${owner}: ${JSON.stringify(host)} is another machine, and QMP has no encryption and asks for no password: bring its socket here with "ssh -L"`,
  );
}

function checkPath(owner: string, address: QmpUnixAddress): void {
  checkUnix(`${owner}: address`, address);
  const { path } = address;
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw new TypeError(`${owner}: the path of a socket is a text, not ${JSON.stringify(path)}`);
  }
  const bytes = Buffer.byteLength(path);
  if (bytes <= LONGEST_PATH || process.platform === 'win32') return;
  throw new RangeError(
    `${owner}: the path of a Unix socket has at most ${LONGEST_PATH} bytes, not ${bytes}: ${path}`,
  );
}
