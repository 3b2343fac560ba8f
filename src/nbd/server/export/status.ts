/** Where the answers to block status requests come from: the device, and the export's bitmaps. */
import { Context, DIRTY, ExtentList, Status } from '../../../extent/index.js';
import { Allocation } from '../../wire/index.js';
import type { NbdExportBitmap, NbdExportDevice } from './export.js';
import type { ServedContext } from './served-export.js';

export interface StatusQuestion {
  readonly offset: number;
  readonly length: number;
  /** In the order of the answers. */
  readonly contexts: readonly ServedContext[];
  /** The longest answer for each of them. */
  readonly maxExtents: number;
  readonly signal: AbortSignal;
}

/** One list for each context, with the wire's flags, none of them empty or longer than the range. */
export async function statusOf(
  device: Pick<NbdExportDevice, 'someExtents'>,
  question: StatusQuestion,
): Promise<ExtentList[]> {
  const asked = question.contexts.filter(({ bitmap }) => bitmap === undefined);
  const answers = asked.length === 0 ? [] : await askDevice(device, asked, question);
  return question.contexts.map(({ name, bitmap }) => {
    if (bitmap !== undefined) return dirtyRuns(bitmap, question);
    const list = answers[asked.findIndex((context) => context.name === name)];
    return clipped(list, question, name === Context.allocation ? allocationFlags : unchanged);
  });
}

/** What the device says, where that can be answered: a list that is empty or begins elsewhere says nothing. */
async function askDevice(
  device: Pick<NbdExportDevice, 'someExtents'>,
  contexts: readonly ServedContext[],
  { offset, length, signal }: StatusQuestion,
): Promise<ExtentList[]> {
  const names = contexts.map(({ name }) => name);
  const lists = await device.someExtents(offset, length, { contexts: names, signal });
  for (const [i, name] of names.entries()) {
    if (tells(lists[i], offset)) continue;
    throw new TypeError(`the device told no extents of "${name}" at ${offset}`);
  }
  return lists;
}

/** Whether a list tells the status of the byte at `offset`, as the first that it tells. */
export function tells(list: ExtentList | undefined, offset: number): list is ExtentList {
  return list !== undefined && list.count > 0 && list.offset === offset;
}

/** The first extents of a list that fit into the answer, with their flags translated. */
function clipped(
  list: ExtentList,
  { offset, length, maxExtents }: StatusQuestion,
  translate: (flags: number) => number,
): ExtentList {
  const end = offset + length;
  const answer = new ExtentList(offset);
  for (let i = 0; i < list.count && answer.end < end; i++) {
    const flags = translate(list.flagsAt(i));
    // One more could still join the last one; telling less is allowed, and simpler.
    if (answer.count === maxExtents) break;
    answer.push(Math.min(list.endAt(i), end) - answer.end, flags);
  }
  return answer;
}

/** "Metadata contexts": what is data has no flag, and only ZERO may be skipped. */
function allocationFlags(status: number): number {
  const hole = (status & Status.hole) !== 0 ? Allocation.hole : 0;
  const zero = (status & Status.zero) !== 0 ? Allocation.zero : 0;
  return hole | zero;
}

function unchanged(flags: number): number {
  return flags;
}

/** Dirty and clean runs in turn. */
function dirtyRuns(
  bitmap: NbdExportBitmap,
  { offset, length, maxExtents }: StatusQuestion,
): ExtentList {
  const end = offset + length;
  const list = new ExtentList(offset);
  for (const run of bitmap.ranges(offset, end)) {
    list.push(run.offset - list.end, 0);
    if (list.count === maxExtents) return list;
    list.push(run.length, DIRTY);
    if (list.count === maxExtents) return list;
  }
  list.push(end - list.end, 0);
  return list;
}
