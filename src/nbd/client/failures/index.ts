export { describeRequest, disconnected, locate, remoteError, violation } from './failures.js';
