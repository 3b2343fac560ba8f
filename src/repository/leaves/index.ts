export { GatheredDigests } from './gathered.js';
export { LeafChain } from './leaf-chain.js';
export { LeafFile, type LeafRun } from './leaf-file.js';
export { DIGEST_BLOCK, DIGEST_BYTES, PART_BLOCKS, ZERO_LEAF } from './tree.js';
export { writeLeaves } from './write-leaves.js';
