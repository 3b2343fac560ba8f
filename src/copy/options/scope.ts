/** What of a disk a plan is about, and what it says of how much. */
import type { Bitmap } from '../../bitmap/index.js';
import { Context, isDirtyContext } from '../../extent/index.js';

/**
 * What of a disk counts. `full`: all of it. `top`: only what its top layer holds, as opposed to what shows
 * through from a backing image. `incremental`: only what is dirty.
 */
export type PlanMode = 'full' | 'top' | 'incremental';

/** What to look for; the part of a plan's options that says so. */
export interface PlanScope {
  /** Default: `incremental` with a context or a bitmap, else `full`. */
  mode?: PlanMode | undefined;
  /** Only what a `qemu:dirty-bitmap:NAME` context of the source marks as dirty; with several, what any marks. */
  context?: string | readonly string[] | undefined;
  /** Only what is dirty in this bitmap; with several, in any. They must be of the source's size. */
  bitmap?: Bitmap | readonly Bitmap[] | undefined;
}

/** Bytes of a device by what is known of them. A byte counts once, in the first that fits. */
export interface PlanTotals {
  /** Bytes of the device: the sum of the others. */
  size: number;
  /** Not dirty, or not held by the top layer: left alone. */
  cleanBytes: number;
  /** Must be read. */
  dataBytes: number;
  /** Allocated and reads as zero. */
  zeroBytes: number;
  /** Not allocated and reads as zero. */
  holeBytes: number;
}

/** A scope that has been checked. */
export interface CheckedScope {
  readonly mode: PlanMode;
  readonly contexts: readonly string[];
  readonly bitmaps: readonly Bitmap[];
}

/** @throws TypeError where the parts contradict one another. */
export function checkScope({ mode, context, bitmap }: PlanScope): CheckedScope {
  const contexts = listOf(context);
  const bitmaps = listOf(bitmap);
  if (contexts.length > 0 && bitmaps.length > 0) {
    throw new TypeError('a plan is made from a context or from a bitmap, not from both');
  }
  const other = contexts.find((name) => !isDirtyContext(name));
  if (other !== undefined) {
    throw new TypeError(
      `an incremental plan needs a ${Context.dirtyPrefix}NAME context, not ${other}`,
    );
  }
  const dirt = contexts.length + bitmaps.length;
  const chosen = mode ?? (dirt > 0 ? 'incremental' : 'full');
  if (!['full', 'top', 'incremental'].includes(chosen)) {
    throw new TypeError(`mode must be full, top or incremental, not ${chosen}`);
  }
  if ((chosen === 'incremental') !== dirt > 0) {
    const need = dirt > 0 ? 'goes with no' : 'needs a';
    throw new TypeError(`the mode "${chosen}" ${need} context or bitmap`);
  }
  return { mode: chosen, contexts, bitmaps };
}

/** Whether a copy leaves parts of the target as they are. */
export function isPartial(scope: PlanScope): boolean {
  return checkScope(scope).mode !== 'full';
}

/**
 * Refuses a claim that would lose data: the target of a partial copy holds what is below, and zeroes that hide it must
 * be written.
 *
 * @throws TypeError
 */
export function checkTargetIsZero(scope: PlanScope & { targetIsZero?: boolean }): void {
  if (!scope.targetIsZero || !isPartial(scope)) return;
  throw new TypeError(
    'a copy of a part goes to a target that holds the rest of the disk, which therefore does not read as zero everywhere: leave out targetIsZero',
  );
}

function listOf<T>(one: T | readonly T[] | undefined): readonly T[] {
  if (one === undefined) return [];
  return Array.isArray(one) ? [...one] : [one as T];
}
