export type { Qcow2Description } from './description.js';
export { qcow2 } from './kind.js';
