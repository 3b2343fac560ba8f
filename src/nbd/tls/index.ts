export { pskKeys, pskOptions, tlsFailure, tryCredentials, x509Options } from './credentials.js';
