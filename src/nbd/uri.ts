/** Where an NBD server listens, in the words of QEMU's SocketAddress. */
export type NbdServerAddress =
  | { type: 'unix'; path: string }
  | { type: 'inet'; host: string; port: number };
