import { type CompareOptions, type CompareReport, compare } from '../../copy/index.js';
import type { Shell } from '../shell/index.js';
import { showReading } from './show-job.js';

/** Compares with a bar, where there is a terminal for one. */
export function compareWithBar(options: CompareOptions, shell: Shell): Promise<CompareReport> {
  return showReading(compare(options), 'Comparing', shell);
}
