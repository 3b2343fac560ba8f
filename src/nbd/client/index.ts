export type { ListedExport } from '../wire/index.js';
export type {
  NbdConnectOptions,
  NbdQueryOptions,
  NbdReadOptions,
  NbdRequestOptions,
  NbdRequests,
  NbdStatusOptions,
  NbdWriteOptions,
  NbdZeroOptions,
} from './export/index.js';
export { NbdClient } from './export/index.js';
export type { ExportInformation, ExportProperties } from './handshake/index.js';
export {
  connectPatiently,
  type NbdReconnectOptions,
  ReconnectingClient,
} from './reconnect/index.js';
