import { fstatSync } from 'node:fs';
import { ExtentList, Status } from '../../../extent/index.js';
import { errnoName, type SystemCalls } from './ffi.js';

/** Extents in one answer: some 50 ms of system calls, after which others must have their turn. */
const LONGEST_ANSWER = 65_536;

const HOLE = Status.hole | Status.zero;

/**
 * Walks the data and holes of a file from one byte to another: the last extent may go on behind it, and in a file
 * of very many the list ends early.
 *
 * Both calls move the file's offset, which everybody who shares the opening shares too; so an opening is never
 * shared, and bytes are read and written at explicit offsets only.
 *
 * @returns the extents, or the name of the errno that the system gave.
 */
export function walkExtents(
  calls: SystemCalls,
  fd: number,
  offset: number,
  end: number,
): ExtentList | string {
  const list = new ExtentList(offset);
  while (list.end < end && list.count < LONGEST_ANSWER) {
    const data = calls.seekData(fd, list.end);
    if (data < 0) {
      const errno = errnoName(data);
      if (errno !== 'ENXIO') return errno;
      return withoutData(list, fd, end);
    }
    list.push(data - list.end, HOLE);
    if (data >= end) return list;
    const hole = calls.seekHole(fd, data);
    if (hole < 0) return errnoName(hole);
    list.push(hole - data, Status.data);
  }
  return list;
}

/**
 * No data from here to the end of the file. Where the file was cut since it was opened, what is missing is no hole:
 * it is called data, so that whoever reads it is told.
 */
function withoutData(list: ExtentList, fd: number, end: number): ExtentList {
  const { size } = fstatSync(fd);
  if (list.end < size) list.push(Math.min(end, size) - list.end, HOLE);
  list.push(end - list.end, Status.data);
  return list;
}
