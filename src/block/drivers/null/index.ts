export { NullDriver } from './null.js';
