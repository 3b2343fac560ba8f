export { inLanes } from './lanes.js';
export { LiveJob } from './live-job.js';
export type { BitmapMode, SyncMode } from './modes.js';
export { type Piece, piecesOf } from './pieces.js';
export { type JobErrorPolicy, policyFor } from './policies.js';
export { endAtLast, isBusy } from './quiet.js';
export { type RoundPlan, Rounds } from './rounds.js';
export { type LastRound, untilTold } from './until-told.js';
export { type Ending, Wish } from './wish.js';
