export { type AddNodeOptions, addNode } from './add-node.js';
export type { FilterNodeDescription, NodeDescription } from './description.js';
export { DRAIN_LIMIT_MS } from './drain.js';
export { busy, unknownName } from './failures.js';
export { Node } from './node.js';
export { checkUsers, EVERYTHING, type Permission } from './permissions.js';
export { RecordingDevice } from './recorder.js';
export type { EdgeChange } from './replacement.js';
export { Root } from './root.js';
export {
  type EdgePicture,
  edgePictures,
  type GraphPicture,
  type NodePicture,
  picture,
  toDot,
  type UserPicture,
} from './show.js';
export { GraphState } from './state.js';
export { type Changes, change } from './transaction.js';
