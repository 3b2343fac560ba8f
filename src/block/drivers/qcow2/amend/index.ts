export { amendHeader } from './amend.js';
