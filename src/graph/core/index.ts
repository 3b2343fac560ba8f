export type { AddNodeOptions } from './add-node.js';
export { Changer } from './changer.js';
export type {
  FilterNodeDescription,
  NodeDescription,
  WithNames,
  WithoutFile,
} from './description.js';
export { DRAIN_LIMIT_MS } from './drain.js';
export type { Edge } from './edge.js';
export { busy, called, conflict, type Named, unknownName } from './failures.js';
export { joinedChanges } from './joined-changes.js';
export { Node } from './node.js';
export { EVERYTHING, type Permission, usersNeed } from './permissions.js';
export { RecordingDevice } from './recorder.js';
export type { EdgeChange } from './replacement.js';
export type { Root } from './root.js';
export {
  type EdgePicture,
  edgePictures,
  type GraphPicture,
  type NodePicture,
  picture,
  toDot,
  type UserPicture,
} from './show.js';
export type { GraphState } from './state.js';
export { fileBelow, formatBelow } from './stored-in.js';
export type { BitmapChange, Changes } from './transaction.js';
