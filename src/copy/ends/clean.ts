import { filesOf, type ImageFormat, imageOf } from '../../block/index.js';
import {
  type Leftover,
  leftoversOf,
  type Purpose,
  removeLeftover,
  statIfThere,
} from '../../files/index.js';
import { checkGiven, counted } from '../../util/index.js';
import { A_DEVICE, type DeviceSource } from '../options/index.js';
import { dataFilesOf, describeDevice } from './participants.js';

/** What was done about the unfinished files of a target. */
export interface CleanReport {
  /** Files that are gone now. */
  removed: Leftover[];
  /** Files that a later copy may go on with, and those that are in use. */
  kept: Leftover[];
}

const DISKS: readonly Purpose[] = ['target', 'resumable'];

/** Unfinished files of copies to a name that have ended, by whatever death. */
function unfinishedCopies(filename: string): Leftover[] {
  return leftoversOf(filename, DISKS).filter(({ isInUse }) => !isInUse);
}

/** Says that there are such files, and what can be done about it. */
export function unfinishedWarning(filenames: readonly string[]): string[] {
  return filenames.flatMap((filename) => {
    const found = unfinishedCopies(filename);
    if (found.length === 0) return [];
    const mib = Math.ceil(found.reduce((sum, { bytes }) => sum + bytes, 0) / 2 ** 20);
    const files = `${counted(found.length, 'unfinished file')} ${found.length === 1 ? 'lies' : 'lie'}`;
    return [
      `${files} beside ${filename} (${mib} MiB), left by earlier copies: "lacuna copy --clean ${filename}" lists and removes what nothing can go on with`,
    ];
  });
}

/**
 * Removes what copies to a target have left that were killed or given up: only files that were made for that name by a
 * copy, and that nobody uses. What a resume file may go on with is kept.
 *
 * @throws LacunaError ERR_DEVICE_OPEN, and what the system says.
 */
export function cleanTarget(target: DeviceSource, format?: ImageFormat): CleanReport {
  checkGiven('cleanTarget', 'target', target, A_DEVICE);
  const report: CleanReport = { removed: [], kept: [] };
  const description = describeDevice(target, format);
  const names = filesOf(description);
  const data = imageOf(description) ? names.filter(isThere).flatMap(dataFilesOf) : [];
  for (const filename of new Set([...names, ...data])) {
    for (const leftover of leftoversOf(filename, DISKS)) {
      const isRemoved =
        leftover.purpose === 'target' && !leftover.isInUse && removeLeftover(leftover);
      (isRemoved ? report.removed : report.kept).push(leftover);
    }
  }
  return report;
}

function isThere(path: string): boolean {
  return statIfThere(path)?.isFile() === true;
}
