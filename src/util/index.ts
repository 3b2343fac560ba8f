export { joinSignals, onAbort, orAborted } from './abort.js';
export { alignDown, alignUp, isPowerOfTwo } from './align.js';
export { exactText, joinHalves, readU64, TWO_32, viewOf, writeU64 } from './bytes.js';
export { closeAfter } from './close-after.js';
export { counted } from './counted.js';
export { bindCalls, type Koffi, loadKoffi } from './koffi.js';
export { guardKoffi } from './koffi-guard.js';
export { Lanes, type LaneWork } from './lanes.js';
export {
  checkGiven,
  checkKnown,
  optionCheck,
} from './options.js';
export { ownFile } from './own-file.js';
export { packageVersion } from './package-version.js';
export { readSmallFile } from './read-small-file.js';
export { describeRefusal } from './refusal.js';
export { Serial } from './serial.js';
export { settleAll } from './settle-all.js';
export { parseSize, SIZE_LIMIT } from './size.js';
export { listenForOwner, removeAbandoned } from './socket-file.js';
export { Turns } from './turns.js';
export { afterWaiting, LONGEST_TIMER_MS, Watchdog } from './watchdog.js';
