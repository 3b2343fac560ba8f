export {
  NbdClient,
  type NbdConnectOptions,
  type NbdWriteOptions,
  type NbdZeroOptions,
} from './client/client.js';
export type { ListedExport } from './client/list.js';
export { formatNbdUri, type NbdLocation, type NbdServerAddress, parseNbdUri } from './uri.js';
