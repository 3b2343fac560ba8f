export { checkDescription } from './check-description.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './parse-description.js';
export {
  childrenOf,
  filesOf,
  type ImageDescription,
  imageOf,
  isMadeOfFiles,
  isRemote,
  isServedHere,
  kindOf,
  placeOf,
  takesKey,
} from './questions.js';
