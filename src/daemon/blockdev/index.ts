export { describe, portOf } from './describe.js';
export { nodeInfo } from './node-info.js';
export {
  type BlockdevOptions,
  blockdevOptions,
  type SocketAddress,
  socketAddress,
} from './options.js';
