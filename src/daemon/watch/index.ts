export { startWatch, type Watch, type WatchOptions } from './watch.js';
