export {
  createQcow2,
  finishQcow2On,
  formatQcow2On,
  layOutQcow2,
  layOutQcow2On,
  newQcow2Bytes,
} from './create.js';
export {
  checkBacking,
  checkOptions,
  type MappedClusters,
  type Preallocation,
  type Qcow2Options,
} from './create-options.js';
