export { inLanes } from './lanes.js';
export type { BitmapMode, SyncMode } from './modes.js';
export { type Piece, piecesOf } from './pieces.js';
export { type JobErrorPolicy, policyFor } from './policies.js';
export type { RoundPlan, Rounds } from './rounds.js';
export { roundsOf } from './rounds-of.js';
export { type LastRound, lastRoundOf, untilTold } from './until-told.js';
