export { carryBitmap } from './carry-bitmaps.js';
export { type CleanReport, cleanTarget } from './clean.js';
export type { CopyState } from './copy-state.js';
export { filesIn, filesOfNewImage, refuseShared, refuseSideFiles } from './participants.js';
export {
  type Binding,
  checkBinding,
  mismatch,
  sourceBinding,
} from './resume-binding.js';
export { openSource, reconnects, type Source } from './source.js';
export { openStreamTarget, type StreamTarget } from './stream-target.js';
export { describeTarget, prepareTarget, type Target } from './target.js';
export { isWholeAfter, statIfThere, UnfinishedFile } from './unfinished-file.js';
