export { checkedDevice } from './checked-device.js';
export { differences } from './differences.js';
export { DiskDigests, withDigests } from './disk-digests.js';
export { describeLayers, type Layer, layersOf } from './layers.js';
export { OpenDisk, withDisk } from './open-disk.js';
export { MachinePoints } from './points.js';
export { settleReplacements } from './replacements.js';
export {
  type DiskFiles,
  digestOfFiles,
  disksIn,
  filesIfNamed,
  NEW,
  namedFiles,
  removeUnnamed,
  unnamedFiles,
} from './unnamed.js';
