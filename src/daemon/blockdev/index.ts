export { type FileWish, type Qcow2Wish, qcow2Creation } from './creation.js';
export { CHILDREN, describe, portOf } from './describe.js';
export { fileNameOf, nodeInfo } from './node-info.js';
export {
  type BlockdevOptions,
  blockdevOptions,
  DRIVERS,
  type SocketAddress,
  socketAddress,
} from './options.js';
