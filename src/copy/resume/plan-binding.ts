import { checksumOf } from '../../bitmap/files/index.js';
import type { Binding } from '../ends/index.js';
import type { CheckedScope } from '../options/index.js';

/** What the copy was planned from: everything, the top layer, or what contexts or bitmaps call dirty. */
export function planBinding(scope: CheckedScope): Binding {
  return { 'choice of what to copy': choiceOf(scope) };
}

function choiceOf({ mode, contexts, bitmaps }: CheckedScope): string {
  if (contexts.length > 0) return contexts.join(', ');
  if (bitmaps.length > 0) return `bitmap ${bitmaps.map(checksumOf).join(', ')}`;
  return mode === 'top' ? 'the top layer' : 'all';
}
