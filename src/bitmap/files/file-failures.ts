/** Opening a file of bitmaps, and what can be wrong with it. */
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { describeRefusal } from '../../util/index.js';

/** Opens an existing file; undefined when there is none. */
export function openExisting(path: string, readOnly: boolean): number | undefined {
  const { O_RDONLY, O_RDWR, O_NONBLOCK } = fs.constants;
  try {
    // A FIFO would otherwise wait for somebody at its other end.
    return fs.openSync(path, (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileFailure('open', path, error);
  }
}

/** What the system said when it was asked to do something with a file of bitmaps. */
export function fileFailure(action: string, path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof LacunaError || code === undefined) return error;
  const what = `cannot ${action} the file of bitmaps ${path}`;
  return new LacunaError(
    'ERR_BITMAP_FILE',
    describeRefusal(what, code, { making: action === 'store' }),
    { device: path, errno: code, cause: error },
  );
}

export function corrupt(path: string, what: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_CORRUPT',
    `the file of bitmaps ${path} is damaged: ${what}. Remove it, add its bitmaps anew and make a ` +
      'full copy',
    { device: path },
  );
}
