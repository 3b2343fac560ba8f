export {
  checkDescription,
  checkNamedDescription,
  type NamedDescription,
} from './check-description.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './parse-description.js';
export {
  changeHolder,
  changeOwn,
  changeUnfiltered,
  fileOf,
  filesOf,
  holderOf,
  type ImageDescription,
  imageOf,
  isMadeOfFiles,
  isRemote,
  isSameDevice,
  isServedHere,
  kindOf,
  partsOf,
  placeOf,
  sharing,
  sideFilesOf,
  sizedFor,
  takesKey,
  unfiltered,
} from './questions.js';
