export { createQcow2, layOutQcow2, type MappedClusters } from './create.js';
export {
  checkBacking,
  checkOptions,
  type Preallocation,
  type Qcow2Options,
} from './create-options.js';
