import fs from 'node:fs';

const LISTENS = 0x10000;

/** Who uses a Unix socket of this machine, as the kernel lists it. */
export interface SocketUse {
  /** Somebody listens there. */
  readonly isOpen: boolean;
  /** Connections that were accepted there and not closed. */
  readonly connections: number;
}

/**
 * Asks the kernel about a socket, without connecting: a QEMU below 8.0 hangs when its NBD server is stopped while somebody
 * begins to connect. Undefined where the kernel has no such list.
 */
export function socketUse(path: string): SocketUse | undefined {
  let text: string;
  try {
    text = fs.readFileSync('/proc/net/unix', 'utf8');
  } catch {
    return undefined;
  }
  let [isOpen, connections] = [false, 0];
  // Num RefCount Protocol Flags Type St Inode Path
  for (const line of text.split('\n')) {
    const [, , , flags, , , , ...rest] = line.trim().split(/\s+/);
    if (rest.join(' ') !== path) continue;
    if (Number.parseInt(flags, 16) & LISTENS) isOpen = true;
    else connections++;
  }
  return { isOpen, connections };
}
