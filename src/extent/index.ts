export { type Extent, ExtentList } from './extent-list.js';
export type { Range } from './range.js';
export { Context, DIRTY, isDirtyContext, readsAsZero, Status } from './status.js';
export { visitTogether } from './visit-together.js';
