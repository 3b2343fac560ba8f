import { CommanderError } from 'commander';
import { isAborted, LacunaError } from '../errors/index.js';
import { inCommandWords } from './option-names.js';

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
  if (error instanceof CommanderError) return error.exitCode === 0 ? Exit.done : Exit.misuse;
  if (isAborted(error)) return Exit.interrupted;
  if (error instanceof TypeError || error instanceof RangeError) return Exit.misuse;
  return Exit.failed;
}

/**
 * What a person reads about an error: one line that names the program, then the code to look up. The
 * stack is for those who debug Lacuna itself.
 */
export function describeError(error: unknown, { stack = false } = {}): string {
  const lines = [`lacuna: ${headline(error)}`];
  if (stack && error instanceof Error && error.stack !== undefined) {
    lines.push(error.stack, ...causesOf(error).map((cause) => `caused by ${cause.stack ?? cause}`));
  }
  return `${lines.join('\n')}\n`;
}

function headline(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isAborted(error)) return 'stopped before it was done';
  // Ours tell all that a person needs; what others throw may hide that in the cause.
  if (error instanceof LacunaError) return `${error.message} (${error.code})`;
  const message = inCommandWords(error);
  const [cause] = causesOf(error);
  if (cause === undefined || message.includes(cause.message)) return message;
  return `${message}: ${cause.message}`;
}

function causesOf(error: Error): Error[] {
  const causes: Error[] = [];
  for (let next = error.cause; next instanceof Error && !causes.includes(next); next = next.cause) {
    causes.push(next);
  }
  return causes;
}
