/**
 * The kernels: functions over memory that belongs to the caller. The module holds no data, no heap,
 * no start function and no state, so that every thread may have its own instance over the one
 * memory.
 */
export * from "./layout";
export { WALK_BYTES } from "./walk";
export { alloc, initArena, isArena, release, retain, usedBytes } from "./buddy";
export { isZero, zeroRun } from "./zero";
export {
  bitmapAttach, bitmapCount, bitmapCreate, bitmapDirtyBytes, bitmapFill, bitmapFree,
  bitmapHasRoom, bitmapReset,
  bitmapSet, bitmapSetMany, bitmapSetRanges, bitmapShift, bitmapSize, bitmapSnapshot,
} from "./bitmap";
export {
  bitmapArea, bitmapClaim, bitmapCountIn, bitmapFind, bitmapGet, bitmapRuns, bitmapSelect,
  bitmapStatus,
} from "./query";
export { bitmapCombine, bitmapReplace, bitmapResize } from "./algebra";
export { bitmapReadWords, bitmapWriteWords } from "./serialize";
export { l2Runs } from "./qcow2";
export { clearSeen, repeats, valueSquares } from "./shrink";
