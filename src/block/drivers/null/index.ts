export type { NullDescription } from './description.js';
export { nothing } from './kind.js';
export { NullDriver } from './null.js';
