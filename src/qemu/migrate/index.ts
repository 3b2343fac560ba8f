export { migrateMachine } from './migrate.js';
export {
  checkMigrateOptions,
  checkMigratePlanOptions,
  type MigrateOptions,
  type MigratePhase,
  type MigratePlan,
  type MigratePlanDisk,
  type MigratePlanOptions,
  type MigrateProgress,
  type MigrateReport,
  type MigrateRound,
} from './options.js';
export { planMigration, shortPlan } from './plan-migrate.js';
