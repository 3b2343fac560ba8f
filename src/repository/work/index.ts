export {
  type RepositoryProgress,
  type RepositoryStep,
  runCopy,
  Tally,
  type Workshop,
} from './tally.js';
