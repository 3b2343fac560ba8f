export { type CommitOptions, type CommitReport, commit } from './commit.js';
export { type RebaseOptions, type RebaseReport, rebase } from './rebase.js';
