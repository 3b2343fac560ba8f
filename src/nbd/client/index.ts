export type { ListedExport } from '../wire/index.js';
export { NbdClient } from './client.js';
export type {
  NbdConnectOptions,
  NbdQueryOptions,
  NbdReadOptions,
  NbdRequestOptions,
  NbdRequests,
  NbdStatusOptions,
  NbdWriteOptions,
  NbdZeroOptions,
} from './client-options.js';
export { connectPatiently } from './connect-patiently.js';
export type { ExportProperties } from './export-properties.js';
export type { ExportInformation } from './information.js';
export { type NbdReconnectOptions, ReconnectingClient } from './reconnecting-client.js';
