export { Cells } from './cells.js';
export { columns } from './columns.js';
export {
  type CommandFacts,
  factsOf,
  type OptionFacts,
  type Values,
} from './command-facts.js';
export { ProgressBar } from './progress.js';
export { readText } from './read-text.js';
export {
  formatBytes,
  formatDuration,
  formatRate,
  formatShare,
} from './units.js';
