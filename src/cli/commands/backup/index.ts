export { registerBackup } from './backup.js';
