export { QmpCommandError, type QmpErrorClass } from './command-error.js';
export type { QmpListenAddress, QmpListenDescriptor, QmpListenPath } from './listen.js';
export {
  type QmpCommand,
  QmpServer,
  type QmpServerCloseOptions,
  type QmpServerLimits,
  type QmpServerOptions,
} from './server.js';
