export type { NbdServerAddress } from './uri.js';
