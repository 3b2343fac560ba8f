export { AgentGuard } from './agent-guard.js';
export { cancelMigration, isAtRest, restoreCapabilities } from './cancel-migration.js';
export { thawFor } from './thaw.js';
