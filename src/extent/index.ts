export { type Extent, ExtentList } from './extent-list.js';
export { Context, DIRTY, isDirtyContext, Status } from './status.js';
export { visitTogether } from './visit-together.js';
