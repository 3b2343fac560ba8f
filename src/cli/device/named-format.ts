import { type ImageFormat, imageOf, parseDescription, plainFile } from '../../block/index.js';
import type { Shell } from '../shell/index.js';

/** Warns of a file whose name says another format than it has: that is how it will be opened. */
export function warnOfName(path: string, format: ImageFormat, shell: Shell): void {
  const named = formatByName(path);
  if (named === format || named === undefined) return;
  const what = named === 'other' ? 'not open at all' : `take for ${named}`;
  shell.note(
    `lacuna: warning: ${path} is a ${format} image, which other commands ${what} by its name: say -f ${format} to them, or rename it\n`,
  );
}

/** What a name alone is opened as; undefined where it is no path. */
function formatByName(path: string): ImageFormat | 'other' | undefined {
  try {
    const description = parseDescription(path);
    return plainFile(description) ? 'raw' : imageOf(description)?.driver;
  } catch {
    return 'other';
  }
}
