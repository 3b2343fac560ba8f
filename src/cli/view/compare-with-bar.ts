import { type CompareOptions, type CompareReport, compare } from '../../copy/index.js';
import type { Shell } from '../shell/index.js';
import { withBar } from '../text/index.js';

/** Compares with a bar, where there is a terminal for one. */
export function compareWithBar(options: CompareOptions, shell: Shell): Promise<CompareReport> {
  return withBar('Comparing', shell, (show) =>
    compare({
      ...options,
      onProgress: ({ comparedBytes, totalBytes }) => show({ doneBytes: comparedBytes, totalBytes }),
    }),
  );
}
