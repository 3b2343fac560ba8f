export { descriptorOf } from './socket-handle.js';
export { socketPathOf } from './socket-path.js';
export {
  type OfferedTls,
  offeredTls,
  readKeys,
  type ServerKeys,
  startTls,
  tlsOptions,
} from './start-tls.js';
export { ServerTransport } from './transport.js';
