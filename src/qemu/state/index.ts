export {
  type Journal,
  obsoleteOf,
  readJournal,
  type StandingView,
  writeJournal,
} from './journal.js';
export {
  bitmapOf,
  checkGeneration,
  checkpointOf,
  countsFrom,
  generationIn,
  isCheckpoint,
  isOfBackup,
  isRound,
  newGeneration,
  prefixOf,
  prefixOfRecording,
  SessionNames,
} from './names.js';
export { generationsInUse, SessionFolder } from './session-folder.js';
