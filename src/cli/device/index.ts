export { parseBytes, parseCount } from './arguments.js';
export { FOLDER_FLAG, FOLDER_TEXT, withFolders } from './backing-folders.js';
export {
  type CommandFacts,
  factsOf,
  type OptionFacts,
  type Values,
} from './command-facts.js';
export {
  checkConfigurationFile,
  readConfiguration,
  storeConfiguration,
} from './configuration-file.js';
export { type ContextKinds, kindsOf } from './context-kinds.js';
export { checkDigestFile, readDigest, type StoredDigest, storeDigest } from './digest-file.js';
export { type StatusRange, walkExtents } from './extent-walk.js';
export { FORCE_FLAG, FORCE_TEXT, insistingOn } from './force-in-use.js';
export { type ParsedImageOptions, parseImageOptions, splitImageOptions } from './image-options.js';
export { bitmapNamed, diskNamed, serverAddress } from './machine-disks.js';
export { type BitmapNames, inconsistent, loadBitmaps, parseBitmaps } from './named-bitmaps.js';
export { warnOfName } from './named-format.js';
export { addOutputFlags } from './output-flags.js';
export { addRangeFlags, partOf, type RangeFlags, rangeIn } from './range-flags.js';
export {
  addMachineFlags,
  type MachineFlags,
  nameOfMachine,
  reachMachine,
} from './running-machine.js';
export {
  addRescueFlag,
  addSourceFlags,
  noteMissing,
  openSource,
  type SourceFlags,
  sourceOf,
} from './source-flags.js';
