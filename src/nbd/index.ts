export {
  NbdClient,
  type NbdConnectOptions,
  type NbdWriteOptions,
  type NbdZeroOptions,
} from './client/client.js';
export type { ListedExport } from './client/list.js';
export type { NbdTls, NbdTlsPsk, NbdTlsX509 } from './tls.js';
export {
  formatNbdUri,
  type NbdLocation,
  type NbdServerAddress,
  type NbdUriOptions,
  parseNbdUri,
} from './uri.js';
