export { pskKeys, pskOptions, tlsFailure, x509Options } from './credentials.js';
