export type {
  NbdExportBitmap,
  NbdExportCapabilities,
  NbdExportDevice,
  NbdExportLimits,
  NbdExportOptions,
  NbdExportZeroOptions,
} from './export.js';
export type { NbdServerLimits } from './limits.js';
export { NbdServer, type NbdServerCloseOptions, type NbdServerOptions } from './server.js';
