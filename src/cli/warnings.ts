import type { Shell } from './shell.js';

/** Tells people what they should know although the work was done. */
export function noteWarnings(warnings: readonly string[], shell: Shell): void {
  for (const warning of warnings) shell.note(`lacuna: warning: ${warning}\n`);
}
