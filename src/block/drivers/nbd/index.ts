export type { NbdDescription } from './description.js';
export { nbd } from './kind.js';
