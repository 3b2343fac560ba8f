export { Context, DIRTY, type Extent, ExtentList, readsAsZero, Status } from '../extent/index.js';
export { NbdClient } from './client/client.js';
export type {
  NbdConnectOptions,
  NbdQueryOptions,
  NbdReadOptions,
  NbdRequestOptions,
  NbdRequests,
  NbdStatusOptions,
  NbdWriteOptions,
  NbdZeroOptions,
} from './client/client-options.js';
export { connectPatiently } from './client/connect-patiently.js';
export type { ExportProperties } from './client/export-properties.js';
export type { ExportInformation } from './client/information.js';
export type { ListedExport } from './client/list.js';
export { type NbdReconnectOptions, ReconnectingClient } from './client/reconnecting-client.js';
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
  type NbdServiceOptions,
} from './server/index.js';
export type { NbdListenAddress, NbdListenDescriptor } from './address/server-address.js';
export type { NbdServerTls, NbdTls, NbdTlsPsk, NbdTlsX509 } from './address/tls.js';
export {
  formatNbdUri,
  type NbdLocation,
  type NbdServerAddress,
  type NbdUriOptions,
  parseNbdUri,
} from './address/uri.js';
