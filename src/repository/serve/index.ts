export { ServedPoint, type ServePointOptions, serve } from './serve.js';
