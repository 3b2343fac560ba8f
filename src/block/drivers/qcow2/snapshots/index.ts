export { applySnapshot } from './apply.js';
export { createSnapshot } from './create.js';
export { deleteSnapshot } from './delete.js';
export { ImageTables } from './image-tables.js';
