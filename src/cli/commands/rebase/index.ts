export { registerRebase } from './rebase.js';
