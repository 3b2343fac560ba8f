export { changesIn, landedDevice, viewBelow } from './landed-driver.js';
export { Landing } from './landing.js';
export { PUSH_NEEDS, Push } from './push.js';
