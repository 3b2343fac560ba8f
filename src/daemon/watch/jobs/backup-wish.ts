import type { BackupWish } from './watched-job.js';

/** Reads what a page asks for. @throws TypeError or RangeError for what makes no sense. */
export function readBackupWish(given: Record<string, unknown>): BackupWish {
  const { node, target, format = 'qcow2', rate, ...others } = given;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new TypeError(`there is no "${unknown}": say node, target, format, rate`);
  }
  if (typeof node !== 'string') throw new TypeError('say which node is backed up');
  if (typeof target !== 'string' || target === '' || target.includes('\0')) {
    throw new TypeError('say into which new file');
  }
  if (format !== 'qcow2' && format !== 'raw') throw new TypeError('format must be qcow2 or raw');
  if (rate === undefined) return { node, target, format };
  if (typeof rate !== 'number' || !(rate >= 1 && rate <= Number.MAX_SAFE_INTEGER)) {
    throw new RangeError('rate must be a number of bytes per second, 1 or more');
  }
  return { node, target, format, rate };
}
