export type { Qcow2Description } from './io/index.js';
export { qcow2 } from './kind.js';
