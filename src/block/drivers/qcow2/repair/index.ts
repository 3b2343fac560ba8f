export { findMissing, refuseCut } from './missing.js';
export { type L1Place, References } from './references.js';
export { rebuildRefcounts, repairRefcounts } from './repair.js';
