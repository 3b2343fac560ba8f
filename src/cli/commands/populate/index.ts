export { registerPopulate } from './populate.js';
