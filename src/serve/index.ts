export type { NbdListenAddress, NbdServerAddress, NbdServerTls } from '../nbd/index.js';
export { createServer } from './create-server.js';
export type { ServedDevice, ServeOptions } from './options.js';
