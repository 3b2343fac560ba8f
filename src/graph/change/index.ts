export { insertFilter } from './insert-filter.js';
export { nameBacking } from './name-backing.js';
export { type Reopening, reopen } from './reopen.js';
