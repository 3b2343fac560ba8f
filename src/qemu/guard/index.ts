export { AgentGuard } from './agent-guard.js';
export { thawFor } from './thaw.js';
