export { Cells } from './cells.js';
export { columns } from './columns.js';
export { ProgressBar } from './progress.js';
export { readText } from './read-text.js';
export {
  formatBytes,
  formatDuration,
  formatRate,
  formatShare,
} from './units.js';
