import { isAborted, LacunaError } from '../../errors/index.js';
import { withCode } from './format-flags.js';
import { inCommandWords } from './option-names.js';
import type { Shell } from './shell.js';

/** Tells a person of the error that ended a command; the stack is for those who debug Lacuna itself. */
export function noteError(error: unknown, shell: Shell, { stack = false } = {}): void {
  shell.note(describeError(error, shell));
  if (!stack || !(error instanceof Error) || error.stack === undefined) return;
  const causes = causesOf(error).map((cause) => `caused by ${cause.stack ?? cause}`);
  shell.noteLines(`${[error.stack, ...causes].join('\n')}\n`);
}

/** What a person reads about an error: one line that names the program, then the code to look up. */
export function describeError(error: unknown, shell: Pick<Shell, 'formatFlag'> = {}): string {
  return `lacuna: ${headline(error, shell)}\n`;
}

function headline(error: unknown, shell: Pick<Shell, 'formatFlag'>): string {
  if (!(error instanceof Error)) return String(error);
  if (isAborted(error)) return 'stopped before it was done';
  // Ours tell all that a person needs; what others throw may hide that in the cause.
  if (error instanceof LacunaError) return withCode(error, shell);
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
