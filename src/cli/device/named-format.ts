import { type DeviceDescription, type ImageFormat, parseDescription } from '../../block/index.js';
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
  const { driver } = described(path);
  if (driver === 'file') return 'raw';
  return driver === 'qcow2' || driver === 'other' ? driver : undefined;
}

function described(path: string): DeviceDescription | { driver: 'other' } {
  try {
    return parseDescription(path);
  } catch {
    return { driver: 'other' };
  }
}
