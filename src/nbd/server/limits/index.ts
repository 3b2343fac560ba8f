export { BufferPool, bufferBytes } from './buffer-pool.js';
export {
  checkCount,
  checkWait,
  MAX_DRAINED_BYTES,
  MAX_OPTION_BYTES,
  MAX_OPTIONS,
  MAX_UNSENT_ANSWERS,
  type NbdServerLimits,
  OPTIONS_PER_EXPORT,
  resolveLimits,
} from './limits.js';
export {
  type BudgetCounter,
  type BudgetCounters,
  type BudgetPlan,
  type MemoryAccount,
  MemoryBudget,
  planBudget,
} from './memory-budget.js';
