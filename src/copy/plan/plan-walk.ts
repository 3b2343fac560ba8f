/** Finds what of a source counts, and what status it has: the walk under every plan. */
import type { Bitmap } from '../../bitmap/index.js';
import {
  type BlockDevice,
  changeHolder,
  holderOf,
  type OpenOptions,
  openDevice,
  takesKey,
} from '../../block/index.js';
import { isAborted, LacunaError } from '../../errors/index.js';
import { Context, type Range, readsAsZero, Status } from '../../extent/index.js';
import { closeAfter, counted } from '../../util/index.js';
import type { Arena } from '../../wasm/index.js';
import type { CheckedScope, DeviceSource } from '../options/index.js';
import { askDirty, dirtyInAny, isDirty, Spans } from './dirty-ranges.js';
import { walkStatus } from './status-walk.js';

/** Opens a source so that it can be planned by a scope. */
export async function openForPlan(
  source: Exclude<DeviceSource, BlockDevice>,
  { mode, contexts }: CheckedScope,
  options: Pick<OpenOptions, 'format' | 'forceShare' | 'signal'>,
): Promise<BlockDevice> {
  if (mode !== 'top') return await openDevice(source, { ...options, contexts });
  try {
    return await openDevice(source, { ...options, contexts: [Context.depth] });
  } catch (error) {
    const has = !(error instanceof LacunaError && error.code === 'ERR_CONTEXT_UNKNOWN');
    if (has) throw error;
    // Without depths everything is taken for the top layer.
    return await openDevice(source, options);
  }
}

export interface PlanWalk {
  readonly scope: CheckedScope;
  readonly source: BlockDevice;
  readonly arena: Arena;
  readonly signal: AbortSignal | undefined;
  /** Waits before each question, as long as none may be asked. */
  readonly mayAsk?: (() => Promise<void>) | undefined;
  /**
   * Whoever moves the data looks for zeroes in it: then a short dirty range is taken for data unasked, because
   * reading it costs as much as asking, and tells the same.
   */
  readonly seesZeroes?: boolean | undefined;
  /**
   * Takes a range that counts and whether it reads as zero, and is not allocated. Ranges do not come in order,
   * and none comes twice.
   */
  readonly visit: (offset: number, length: number, isZero: boolean, isHole: boolean) => void;
}

/** Bytes that a device reads about as fast as it tells their status: a cluster of most images. */
const SHORT = 64 * 1024;

const HOLES_AS_DATA = 'some holes were taken for data';
const CLEAN_AS_DIRTY = 'some clean ranges were taken for dirty';

/** Visits every byte that counts exactly once; what is not visited is clean. Returns warnings. */
export async function walkPlan(walk: PlanWalk): Promise<string[]> {
  checkSizes(walk);
  const { mode } = walk.scope;
  if (mode === 'full') return await walkAll(walk);
  if (mode === 'top') return await walkTop(walk);
  return await walkDirty(walk);
}

async function walkAll(walk: PlanWalk): Promise<string[]> {
  const { source, signal, mayAsk } = walk;
  const refusals = new Refusals(source, HOLES_AS_DATA);
  await walkStatus({
    device: source,
    ranges: wholeOf(source),
    contexts: [Context.allocation],
    signal,
    mayAsk,
    refused: refusals.add,
    visit: (offset, length, [status]) => visit(walk, offset, length, status),
  });
  return refusals.warnings;
}

/**
 * What the top layer holds is what is allocated at depth 1. Without depths everything counts: what shows as a
 * hole may be zeroes of the top layer that hide data below.
 */
async function walkTop(walk: PlanWalk): Promise<string[]> {
  const { source, signal, mayAsk } = walk;
  if (!source.capabilities.contexts.includes(Context.depth)) {
    const guess = `${source.name} does not tell which layer holds what (${Context.depth}), so everything was taken for its top layer`;
    return [guess, ...(await walkAll(walk))];
  }
  const refusals = new Refusals(source, 'more was taken for the top layer than it holds');
  await walkStatus({
    device: source,
    ranges: wholeOf(source),
    contexts: [Context.allocation, Context.depth],
    signal,
    mayAsk,
    refused: refusals.add,
    visit: (offset, length, [status, depth]) => {
      const isBelow = depth === 0 || depth > 1;
      if (!isBelow) visit(walk, offset, length, status);
    },
  });
  return refusals.warnings;
}

async function walkDirty(walk: PlanWalk): Promise<string[]> {
  const { source, arena } = walk;
  const { bitmaps } = walk.scope;
  if (bitmaps.length > 0) {
    return await walkInside(walk, dirtyInAny(bitmaps, source.size, arena));
  }
  if (!source.capabilities.contextsTogether) return await walkDirtFirst(walk, source);
  const apart = await openForDirt(walk);
  if (apart === undefined) return await walkTogether(walk);
  return await closeAfter(
    () => walkDirtFirst(walk, apart),
    () => apart.close(),
  );
}

/**
 * Opens a connection that speaks of dirt alone, for a server that would work out the allocation of the whole disk
 * along with it: QEMU looks at every 32 MiB of a large image. Undefined where there cannot be a second one.
 */
async function openForDirt({
  source,
  scope: { contexts },
  signal,
}: PlanWalk): Promise<BlockDevice | undefined> {
  const { description, capabilities } = source;
  if (description === undefined || !capabilities.multiConnection) return undefined;
  if (!takesKey(holderOf(description), 'allocation')) return undefined;
  try {
    const apart = changeHolder(description, (own) =>
      takesKey(own, 'allocation') ? { ...own, allocation: false, contexts: [...contexts] } : own,
    );
    return await openDevice(apart, { ...(signal && { signal }) });
  } catch (error) {
    // A server may have no place for one more: then all is asked over the connection that there is.
    if (isAborted(error)) throw error;
    return undefined;
  }
}

/**
 * Asks for dirt first, then for allocation where there is some: a bitmap is answered from memory, while
 * allocation may cost a look at the disk for every extent.
 */
async function walkDirtFirst(walk: PlanWalk, source: BlockDevice): Promise<string[]> {
  const { arena, signal, mayAsk } = walk;
  const { contexts } = walk.scope;
  const refusals = new Refusals(source, CLEAN_AS_DIRTY);
  const dirty = await askDirty({ source, contexts, arena, signal, mayAsk, refused: refusals.add });
  return [...refusals.warnings, ...(await walkInside(walk, dirty))];
}

/** Where an answer about dirt includes allocation anyway, it is not asked for twice. */
async function walkTogether(walk: PlanWalk): Promise<string[]> {
  const { source, signal, mayAsk } = walk;
  const { contexts } = walk.scope;
  const refusals = new Refusals(source, CLEAN_AS_DIRTY);
  await walkStatus({
    device: source,
    ranges: wholeOf(source),
    contexts: [Context.allocation, ...contexts],
    signal,
    mayAsk,
    refused: refusals.add,
    visit: (offset, length, flags) => {
      if (flags.some((value, i) => i > 0 && isDirty(value))) visit(walk, offset, length, flags[0]);
    },
  });
  return refusals.warnings;
}

/** Asks for allocation inside what is dirty; frees that at the end. */
async function walkInside(walk: PlanWalk, dirty: Bitmap): Promise<string[]> {
  const { source, signal, mayAsk } = walk;
  const refusals = new Refusals(source, HOLES_AS_DATA);
  const spans = new Spans(dirty);
  // A span may hold clean gaps.
  const visitDirty = (offset: number, length: number, status: number) => {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const area = dirty.nextDirtyArea(at, end);
      if (area === null) return;
      visit(walk, area.offset, area.length, status);
      at = area.offset + area.length;
    }
  };
  const unasked = ({ offset, length }: Range) => visitDirty(offset, length, Status.data);
  try {
    await walkStatus({
      device: source,
      ranges: walk.seesZeroes ? longOnes(spans, unasked) : spans,
      contexts: [Context.allocation],
      signal,
      mayAsk,
      refused: refusals.add,
      visit: (offset, length, [status]) => {
        spans.seen(offset, length);
        visitDirty(offset, length, status);
      },
    });
  } finally {
    dirty.free();
  }
  return refusals.warnings;
}

/** Passes on the ranges that are worth a question, and hands the others to `unasked`. */
function* longOnes(ranges: Iterable<Range>, unasked: (range: Range) => void): Generator<Range> {
  for (const range of ranges) {
    if (range.length > SHORT) yield range;
    else unasked(range);
  }
}

function visit(
  walk: Pick<PlanWalk, 'visit'>,
  offset: number,
  length: number,
  status: number,
): void {
  walk.visit(offset, length, readsAsZero(status), isHole(status));
}

function isHole(status: number): boolean {
  return (status & Status.hole) !== 0;
}

/** All of a device, as a range; none where it has no bytes. */
function wholeOf({ size }: BlockDevice) {
  return size === 0 ? [] : [{ offset: 0, length: size }];
}

function checkSizes({ source, scope: { bitmaps } }: PlanWalk): void {
  const other = bitmaps.find(({ size }) => size !== source.size);
  if (other === undefined) return;
  throw new LacunaError(
    'ERR_BITMAP_MISMATCH',
    `The bitmap is of ${other.size} bytes and ${source.name} of ${source.size}: they must be the same size`,
    { device: source.name },
  );
}

/** Counts the status queries that a device refused, to be told once. */
class Refusals {
  readonly #device: BlockDevice;
  readonly #consequence: string;
  #count = 0;
  #last = '';

  constructor(device: BlockDevice, consequence: string) {
    this.#device = device;
    this.#consequence = consequence;
  }

  readonly add = (error: LacunaError): void => {
    this.#count++;
    this.#last = error.message;
  };

  get warnings(): string[] {
    if (this.#count === 0) return [];
    const queries = counted(this.#count, 'status query', 'status queries');
    return [
      `${this.#device.name} gave no useful answer to ${queries}, so ${this.#consequence} (${this.#last})`,
    ];
  }
}
