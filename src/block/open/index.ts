export { again, type DeviceAgain, isShareable, openAgain } from './device-again.js';
export { warnOfSignature } from './image-signature.js';
export { describeOpened, type OpenOptions, openBelow, openDevice } from './open.js';
