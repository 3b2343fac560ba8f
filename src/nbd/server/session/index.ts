export { ServerSession, type SessionOptions } from './session.js';
