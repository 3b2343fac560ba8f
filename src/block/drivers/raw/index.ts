export type { RawDescription } from './description.js';
export { raw } from './kind.js';
