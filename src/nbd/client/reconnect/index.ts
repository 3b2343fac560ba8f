export { connectPatiently } from './connect-patiently.js';
export { type NbdReconnectOptions, ReconnectingClient } from './reconnecting-client.js';
