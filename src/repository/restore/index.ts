export { type RestoreOptions, type RestoreReport, type RestoreTarget, restore } from './restore.js';
