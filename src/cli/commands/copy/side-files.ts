/** Files that a copy is told of beside its two ends. Each must be one of its own. */

import { filesIn, filesOfNewImage, refuseShared } from '../../../copy/ends/index.js';
import type { CopyOptions } from '../../../copy/index.js';
import { parseBitmaps } from '../../device/index.js';
import type { CopyFlags } from './copy-flags.js';

/**
 * Refuses flags that name one file twice, before anything is opened for writing.
 *
 * @throws RangeError
 */
export function checkSideFiles(options: CopyOptions, flags: CopyFlags): void {
  const { source, target, sourceFormat, targetFormat } = options;
  const { digestFile, resume, rateFile } = flags;
  const written = [...filesIn(target, targetFormat), ...filesOfNewImage(target, options)];
  const bitmaps = [...parseBitmaps(flags.bitmap ?? [], 'NAME=FILE').ofFiles.values()];
  const read = [...bitmaps, ...(rateFile === undefined ? [] : [rateFile])];
  for (const path of bitmaps) refuseShared('--bitmap', path, written);
  if (rateFile !== undefined) refuseShared('--rate-file', rateFile, written);
  if (resume !== undefined) refuseShared('--resume', resume, read);
  if (digestFile === undefined) return;
  const others = [...filesIn(source, sourceFormat), ...written, ...read];
  refuseShared('--digest-file', digestFile, resume === undefined ? others : [...others, resume]);
}
