export { describeMissing, findMissing, refuseCut } from './missing.js';
export { rebuildRefcounts, repairRefcounts } from './repair.js';
