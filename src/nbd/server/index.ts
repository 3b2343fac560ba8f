export {
  checkExportOptions,
  type NbdExportBitmap,
  type NbdExportCapabilities,
  type NbdExportDevice,
  type NbdExportLimits,
  type NbdExportOptions,
  type NbdExportZeroOptions,
} from './export.js';
export type { ClientEvents, NbdConnection, NbdHost } from './host.js';
export { checkCount, type NbdServerLimits } from './limits.js';
export {
  type BudgetCounter,
  type BudgetCounters,
  type BudgetPlan,
  MemoryBudget,
} from './memory-budget.js';
export { NbdServer, type NbdServerCloseOptions, type NbdServerOptions } from './server.js';
export { guarded, NbdService, type NbdServiceOptions } from './service.js';
export { descriptorOf } from './socket-handle.js';
export { type OfferedTls, offeredTls, type ServerKeys } from './start-tls.js';
