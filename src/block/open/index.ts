export { warnOfSignature } from './image-signature.js';
export { describeOpened, type OpenOptions, openBelow, openDevice, openDriver } from './open.js';
export { isShareable, openShared, type SharedDevice, shareDevice } from './shared-device.js';
