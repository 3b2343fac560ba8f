export { ExportProperties } from './export-properties.js';
export { type Agreement, handshake } from './handshake.js';
export { askInfo, ExportInformation } from './information.js';
export { listExports } from './list.js';
