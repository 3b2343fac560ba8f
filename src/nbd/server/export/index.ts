export {
  checkExportOptions,
  type NbdExportBitmap,
  type NbdExportCapabilities,
  type NbdExportDevice,
  type NbdExportLimits,
  type NbdExportOptions,
  type NbdExportZeroOptions,
} from './export.js';
export { Holes } from './holes.js';
export { type ServedContext, ServedExport } from './served-export.js';
export { statusOf } from './status.js';
