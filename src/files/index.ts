export { modeBeside } from './access.js';
export { type FileRequest, fileError, shortError } from './file-error.js';
export { type Leftover, leftoversOf, removeLeftover, sweep } from './leftovers.js';
export { lockFile } from './lock-file.js';
export { type Purpose, purposeOf } from './made-name.js';
export { makeFile } from './new-file.js';
export { type FileOperations, fileOperations, syncFolder } from './operations.js';
export {
  followed,
  identityOf,
  inodeOf,
  isSameFile,
  isSamePlace,
  samePlaceAmong,
  statIfThere,
} from './places.js';
export {
  type FileNames,
  type PlannedFile,
  Replacement,
} from './replacement.js';
export { storeFile } from './store-file.js';
