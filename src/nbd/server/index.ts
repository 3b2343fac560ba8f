export {
  checkExportOptions,
  type NbdExportBitmap,
  type NbdExportCapabilities,
  type NbdExportDevice,
  type NbdExportLimits,
  type NbdExportOptions,
  type NbdExportZeroOptions,
} from './export/index.js';
export {
  type BudgetCounter,
  type BudgetCounters,
  type BudgetPlan,
  checkCount,
  MemoryBudget,
  type NbdServerLimits,
} from './limits/index.js';
export { NbdServer, type NbdServerCloseOptions, type NbdServerOptions } from './server.js';
export type {
  ClientEvents,
  NbdClientMessage,
  NbdConnection,
  NbdHost,
} from './service/index.js';
export { guarded, NbdService, type NbdServiceOptions } from './service/index.js';
export type { NbdOperation, NbdRequestMessage } from './session/index.js';
export { descriptorOf, type OfferedTls, offeredTls, type ServerKeys } from './socket/index.js';
