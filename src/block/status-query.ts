import { LacunaError } from '../errors/index.js';
import { Context, ExtentList, Status } from '../extent/index.js';
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
  const { offset, length, contexts, signal } = request;
  const asked = contexts.filter((context) => known.includes(context));
  const grid = new Grid(driver.limits.minimum, driver.size);
  const start = grid.down(offset);
  const span = grid.up(offset + length) - start;
  const answers = asked.length === 0 ? [] : await driver.extents!(start, span, asked, signal);
  if (answers.length !== asked.length) {
    const count = `${answers.length} lists for ${asked.length} contexts`;
    throw new LacunaError(
      'ERR_DEVICE_IO',
      `${driver.name} answered ${count}`,
      whose(driver, request),
    );
  }
  return contexts.map((context) => {
    const index = asked.indexOf(context);
    if (index === -1) return ExtentList.of(offset, length, Status.data);
    const list = answers[index];
    if (list.offset === start && list.end > offset) return slice(list, offset, offset + length);
    const told = `answered ${context} from ${list.offset} to ${list.end}`;
    const message = `${driver.name} ${told} when asked from ${offset}: its status cannot be relied on`;
    throw new LacunaError('ERR_DEVICE_IO', message, whose(driver, request));
  });
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

/** The devices's own name for an unknown context is of no use to anybody: say which ones there are. */
export function checkContexts(
  driver: Driver,
  known: readonly string[],
  contexts: readonly string[],
) {
  for (const context of contexts) {
    if (context === Context.allocation || known.includes(context)) continue;
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
