export {
  attempt,
  createFile,
  foldersIn,
  isThere,
  makeFolder,
  namesIn,
  type OpenFile,
  openFile,
  type RepositoryOperations,
  readIfThere,
  removeFiles,
  replaceFile,
  repositoryOperations,
} from './changes.js';
export {
  checkName,
  isName,
  MachinePlaces,
  machinesFolder,
  numberOf,
  REPOSITORY_FILE,
  SCHEMA_FILE,
} from './places.js';
export { NOT_SEALED, seal, sha256, unseal } from './sealed.js';
