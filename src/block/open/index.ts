export { warnOfSignature } from './image-signature.js';
export { describeOpened, type OpenOptions, openBelow, openDevice } from './open.js';
export { isShareable, openShared, type SharedDevice, shareDevice } from './shared-device.js';
