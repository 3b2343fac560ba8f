import type { BitmapAction } from '../../bitmap/index.js';

/** What is done to bitmaps at the beginning of jobs, and at their end. */
export interface UndoableActions {
  readonly begin: readonly BitmapAction[];
  /** When all jobs have succeeded. */
  readonly good: readonly BitmapAction[];
  /** When one has failed: the bitmaps are as if nothing had been done, and have what was written since. */
  readonly bad: readonly BitmapAction[];
}

/**
 * Actions that can be undone long after other writes have been recorded: a bitmap that is added is removed again, and one that is
 * cleared is frozen until it is known whether what was dirty in it is needed.
 *
 * @throws TypeError for an action that cannot.
 */
export function undoable(actions: readonly BitmapAction[]): UndoableActions {
  const begin: BitmapAction[] = [];
  const good: BitmapAction[] = [];
  const bad: BitmapAction[] = [];
  for (const action of actions) {
    if (action.type === 'add') {
      begin.push(action);
      bad.unshift({ type: 'remove', name: action.name });
    } else if (action.type === 'clear') {
      const { name } = action;
      begin.push({ type: 'freeze', name });
      good.push({ type: 'abdicate', name });
      bad.unshift({ type: 'reclaim', name });
    } else {
      const message = `the action ${action.type} cannot be undone once other writes were recorded: in a grouped transaction, bitmaps are added and cleared only`;
      throw new TypeError(message);
    }
  }
  return { begin, good, bad };
}
