import type { BigIntStats, Stats } from 'node:fs';

/** What something is that is no regular file, for a message. */
export function describeKind(stat: Stats | BigIntStats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isFIFO()) return 'a named pipe (FIFO)';
  if (stat.isSocket()) return 'a socket';
  if (stat.isBlockDevice() || stat.isCharacterDevice()) return 'a device';
  return 'not a regular file';
}
