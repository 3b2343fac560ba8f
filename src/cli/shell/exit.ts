import { isAborted } from '../../errors/index.js';

/** What the command's exit code says. */
export const Exit = {
  done: 0,
  failed: 1,
  misuse: 2,
  /** Done, but something was left out; the report says what. */
  leftOut: 3,
  /** By Ctrl-C; interruption.ts has those of other signals. */
  interrupted: 130,
} as const;

/** The exit code for an error that ended a command. */
export function exitCodeOf(error: unknown): number {
  if (isAborted(error)) return Exit.interrupted;
  if (error instanceof TypeError || error instanceof RangeError) return Exit.misuse;
  return Exit.failed;
}
