export { type Journal, readJournal, writeJournal } from './journal.js';
export {
  bitmapOf,
  checkGeneration,
  countsFrom,
  newGeneration,
  prefixOf,
  prefixOfRecording,
  SessionNames,
} from './names.js';
export { SessionFolder } from './session-folder.js';
