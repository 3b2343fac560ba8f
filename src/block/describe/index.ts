export type {
  CommonDescription,
  DeviceDescription,
  FileDescription,
  MemoryDescription,
  NbdDescription,
  NullDescription,
  Qcow2Description,
} from './description.js';
export { checkDescription } from './description-check.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './parse-description.js';
