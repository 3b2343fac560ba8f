export { mirrorMachine } from './mirror.js';
export {
  checkMirrorOptions,
  type MirrorOptions,
  type MirrorProgress,
  type MirrorReport,
} from './options.js';
