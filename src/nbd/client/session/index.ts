export type { RequestResult, RequestSpec } from './pending-request.js';
export { Session } from './session.js';
