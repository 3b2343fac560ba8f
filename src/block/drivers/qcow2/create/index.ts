export { createQcow2, finishQcow2On, layOutQcow2, layOutQcow2On } from './create.js';
export {
  checkBacking,
  checkOptions,
  type MappedClusters,
  type Preallocation,
  type Qcow2Options,
} from './create-options.js';
