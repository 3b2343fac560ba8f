export { NbdClient } from './client.js';
export {
  CONNECT,
  type NbdConnectOptions,
  type NbdQueryOptions,
  type NbdReadOptions,
  type NbdRequestOptions,
  type NbdRequests,
  type NbdStatusOptions,
  type NbdWriteOptions,
  type NbdZeroOptions,
} from './client-options.js';
