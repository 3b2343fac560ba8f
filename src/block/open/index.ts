export { again, type DeviceAgain, isShareable, openAgain } from './device-again.js';
export { warnOfSignature } from './image-signature.js';
export {
  type OpenOptions,
  openDevice,
  openUnrecorded,
  resizeQcow2,
  setBackingName,
} from './open.js';
