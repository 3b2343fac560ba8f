export {
  checkListenAddress,
  checkServerAddress,
  type NbdListenAddress,
  type NbdListenDescriptor,
} from './server-address.js';
export {
  checkServerTls,
  checkTlsKeys,
  type NbdServerTls,
  type NbdTls,
  type NbdTlsPsk,
  type NbdTlsX509,
} from './tls.js';
export {
  AN_ADDRESS,
  checkAddressKeys,
  formatNbdUri,
  type NbdLocation,
  type NbdServerAddress,
  type NbdUriOptions,
  parseNbdUri,
} from './uri.js';
