export { Broadcast } from './broadcast.js';
export { Viewer } from './viewer.js';
