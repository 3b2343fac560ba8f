export { describeMissing, findMissing, refuseCut } from './missing.js';
export { repairRefcounts } from './repair.js';
