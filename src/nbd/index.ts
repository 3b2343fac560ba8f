export {
  NbdClient,
  type NbdConnectOptions,
  type NbdWriteOptions,
  type NbdZeroOptions,
} from './client/client.js';
export type { ListedExport } from './client/list.js';
export {
  type NbdExportBitmap,
  type NbdExportCapabilities,
  type NbdExportDevice,
  type NbdExportLimits,
  type NbdExportOptions,
  type NbdExportZeroOptions,
  NbdServer,
  type NbdServerCloseOptions,
  type NbdServerLimits,
  type NbdServerOptions,
  type NbdServerTls,
} from './server/index.js';
export { formatNbdUri, type NbdLocation, type NbdServerAddress, parseNbdUri } from './uri.js';
