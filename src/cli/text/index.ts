export { Cells } from './cells.js';
export { columns } from './columns.js';
export { ProgressBar } from './progress.js';
export { readText } from './read-text.js';
export { storeText } from './store-text.js';
export {
  formatBytes,
  formatDuration,
  formatRate,
  formatShare,
  parseBytes,
  parseCount,
} from './units.js';
