export type { NbdOperation, NbdRequestMessage } from './request-channel.js';
export { ServerSession, type SessionOptions } from './session.js';
