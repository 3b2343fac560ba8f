export { changesIn, landedDevice, viewBelow } from './landed-driver.js';
export { Landing } from './landing.js';
export { PUSH_NEEDS, Push, type SessionPush } from './push.js';
export type { PushProgress } from './steering.js';
