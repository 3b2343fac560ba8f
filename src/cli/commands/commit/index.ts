export { registerCommit } from './commit.js';
