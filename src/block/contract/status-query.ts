import { LacunaError } from '../../errors/index.js';
import { Context, DIRTY, ExtentList, isDirtyContext, Status } from '../../extent/index.js';
import { counted } from '../../util/index.js';
import type { Driver } from './driver.js';
import { Grid } from './grid.js';

/** A range whose status is asked, in which contexts. */
export interface StatusRequest {
  readonly offset: number;
  readonly length: number;
  readonly contexts: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * One answer of a driver about a range: a list for each context, none longer than the range, each about at
 * least one byte. A driver that knows no allocation is answered for: everything is data.
 */
export async function askStatus(
  driver: Driver,
  known: readonly string[],
  request: StatusRequest,
): Promise<ExtentList[]> {
  const { offset, length, contexts } = request;
  const asked = known.filter((context) => contexts.includes(context));
  const { minimum, statusMinimum = minimum } = driver.limits;
  let blocks = new Grid(minimum, driver.size);
  let answers = await askDriver(driver, asked, blocks, request);
  const tooShort = answers.some((list) => list.end <= offset);
  if (tooShort && statusMinimum < minimum) {
    // It ended inside the block that holds `offset`: ask on from there.
    blocks = new Grid(statusMinimum, driver.size);
    answers = await askDriver(driver, asked, blocks, request);
  }
  const start = blocks.down(offset);
  return contexts.map((context) => {
    const index = asked.indexOf(context);
    if (index === -1) return ExtentList.of(offset, length, Status.data);
    const list = answers[index];
    if (list.offset === start && list.end > offset) return slice(list, offset, offset + length);
    if (list.offset === start && list.end > start) {
      const end = Math.min(blocks.up(offset + 1), offset + length);
      return ExtentList.of(offset, end - offset, untold(context, list));
    }
    const told = `answered ${context} from ${list.offset} to ${list.end}`;
    const message = `${driver.name} ${told} when asked from ${start}: its status cannot be relied on`;
    throw new LacunaError('ERR_DEVICE_IO', message, whose(driver, request));
  });
}

/** What the driver answers about the blocks that hold a range. */
async function askDriver(
  driver: Driver,
  asked: readonly string[],
  blocks: Grid,
  request: StatusRequest,
): Promise<ExtentList[]> {
  if (asked.length === 0) return [];
  const start = blocks.down(request.offset);
  const span = blocks.up(request.offset + request.length) - start;
  const answers = await driver.extents!(start, span, asked, request.signal);
  if (answers.length === asked.length) return answers;
  const count = `${counted(answers.length, 'list')} for ${counted(asked.length, 'context')}`;
  throw new LacunaError(
    'ERR_DEVICE_IO',
    `${driver.name} answered ${count}`,
    whose(driver, request),
  );
}

/** Asks until every context is answered for the whole range. */
export async function askWholeStatus(
  ask: (request: StatusRequest) => Promise<ExtentList[]>,
  request: StatusRequest,
): Promise<ExtentList[]> {
  const end = request.offset + request.length;
  const lists = await ask(request);
  for (;;) {
    const offset = Math.min(...lists.map((list) => list.end));
    if (offset >= end) return lists;
    const more = await ask({ ...request, offset, length: end - offset });
    for (const [index, list] of lists.entries()) {
      if (more[index].end > list.end) list.append(slice(more[index], list.end, end));
    }
  }
}

/**
 * What is said of the rest of a block whose first bytes alone a driver told of, and that cannot be asked about by
 * itself: what makes it be read, where the context has such a thing.
 */
function untold(context: string, list: ExtentList): number {
  if (context === Context.allocation) return Status.data;
  return isDirtyContext(context) ? DIRTY : list.flagsAt(list.count - 1);
}

/** Refuses a context that the device does not have, and says which ones it has. */
export function checkContexts(
  driver: Driver,
  known: readonly string[],
  contexts: readonly string[],
) {
  for (const context of contexts) {
    if (context === Context.allocation || known.includes(context)) continue;
    const why = driver.whyNoContext?.(context);
    if (why !== undefined) throw why;
    const there = known.length === 0 ? 'none' : known.join(', ');
    const message = `${driver.name} has no metadata context "${context}"; it has: ${there}`;
    throw new LacunaError('ERR_CONTEXT_UNKNOWN', message, { device: driver.name });
  }
}

/** The part of a list between two bytes; `start` must be inside the list. */
function slice(list: ExtentList, start: number, end: number): ExtentList {
  if (list.offset === start && list.end <= end) return list;
  const part = new ExtentList(start);
  for (let i = list.indexOf(start); i < list.count && list.startAt(i) < end; i++) {
    part.push(Math.min(end, list.endAt(i)) - Math.max(start, list.startAt(i)), list.flagsAt(i));
  }
  return part;
}

function whose(driver: Driver, { offset, length }: StatusRequest) {
  return { device: driver.name, offset, length };
}
