import type { Shell } from './shell.js';

/** Tells of a step where people have asked for that; `text` is all our own, or printable. */
export function noteStep(text: string, shell: Pick<Shell, 'isVerbose' | 'note'>): void {
  if (!shell.isVerbose) return;
  shell.note(`lacuna: ${(performance.now() / 1000).toFixed(3)} s: ${text}\n`);
}
