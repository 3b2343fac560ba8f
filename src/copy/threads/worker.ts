/** One worker thread: opens its own connection to both sides and moves, or compares, its share of the plan. */
import type { MessagePort } from 'node:worker_threads';
import { Bitmap } from '../../bitmap/bits/index.js';
import type { BitmapHandle } from '../../bitmap/index.js';
import { type BlockDevice, openShared, type SharedDevice } from '../../block/index.js';
import { toWire, type WireError } from '../../errors/index.js';
import { Arena, type SharedArena } from '../../wasm/index.js';
import { Control, FirstDifference } from '../control/index.js';
import {
  type ComparePace,
  compareShare,
  type Ends,
  LeftOut,
  type MoveOutcome,
  move,
  type Shared,
  type Transfer,
} from '../move/index.js';
import {
  type LeftOutRange,
  type Side,
  SideError,
  withoutSide,
  withSide,
} from '../options/index.js';
import { DigestSender } from './digest-sender.js';

/** What a worker does with its share of the plan: compare, where this is said, else move. */
export interface CompareTask {
  pace: ComparePace;
  /** What each side has to be read for. */
  a: BitmapHandle;
  b: BitmapHandle;
  first: SharedArrayBuffer;
}

/**
 * What a worker is told when it starts. Nothing else is sent to it but a {@link WorkerSignal}, and nothing is sent
 * by it but its result and, if asked, digests.
 */
export interface WorkerTask extends ShareOfWork {
  memory: SharedMemory;
  ends: SharedEnds;
  /** Its row of counters. */
  row: number;
  /** Send the digests of the blocks that were moved. */
  digest: boolean;
  port: MessagePort;
}

/** What the workers do with what each of them claims: one of the two. */
export interface ShareOfWork {
  /** How to move. */
  transfer?: Transfer | undefined;
  compare?: CompareTask | undefined;
}

/** Where all threads find what they share. */
export interface SharedMemory {
  arena: SharedArena;
  plan: BitmapHandle;
  remains?: BitmapHandle | undefined;
  unread?: BitmapHandle | undefined;
  leftOutMap?: BitmapHandle | undefined;
  control: SharedArrayBuffer;
}

/** The two devices, for each thread to open. */
export interface SharedEnds {
  source: SharedDevice;
  target: SharedDevice;
}

/** `stop`: end now. `drained`: the plan is empty, so a connection that is still being made is not needed. */
export type WorkerSignal = 'stop' | 'drained';

export interface WorkerResult {
  /** Whether both devices could be opened; where not, others may do the work. */
  opened: boolean;
  /** See `MoveOutcome`. */
  flushed: boolean;
  /** What the mover had to leave out; see `LeftOut`. */
  leftOut: { ranges: readonly LeftOutRange[]; more: number };
  error?: WireError;
  /** Where the error happened, if that is known. */
  side?: Side;
}

const UNUSED = { flushed: true, leftOut: { ranges: [], more: 0 } };

export default async function work(task: WorkerTask): Promise<WorkerResult> {
  const abort = new AbortController();
  let opened = false;
  let drained = false;
  task.port.on('message', (signal: WorkerSignal) => {
    if (signal === 'drained') drained = true;
    if (signal === 'stop' || !opened) abort.abort();
  });
  const devices: BlockDevice[] = [];
  try {
    devices.push(await openShared(task.ends.source, { signal: abort.signal }));
    const writable = task.compare === undefined;
    devices.push(await openShared(task.ends.target, { writable, signal: abort.signal }));
    // A connection may come up at the very moment when it is not needed any more.
    if (drained) return { opened, ...UNUSED };
    opened = true;
    const leftOut = new LeftOut();
    const outcome = await workShare(
      task,
      { source: devices[0], target: devices[1] },
      leftOut,
      abort.signal,
    );
    const { ranges, more } = leftOut;
    return { opened, leftOut: { ranges, more }, ...tell(outcome) };
  } catch (error) {
    if (!opened && drained) return { opened, ...UNUSED };
    if (opened) return { opened, ...UNUSED, ...tell({ error, flushed: false }) };
    const side = devices.length === 0 ? 'source' : 'target';
    return { opened, ...UNUSED, ...tell({ error: withSide(side, error), flushed: true }) };
  } finally {
    await Promise.allSettled(devices.map((device) => device.close()));
    task.port.close();
  }
}

function tell({ flushed, error }: MoveOutcome): Pick<WorkerResult, 'flushed' | 'error' | 'side'> {
  if (error === undefined) return { flushed };
  const side = error instanceof SideError ? error.side : undefined;
  return { flushed, error: toWire(withoutSide(error)), ...(side && { side }) };
}

async function workShare(
  { memory, row, transfer, compare, digest, port }: Omit<WorkerTask, 'ends'>,
  ends: Ends,
  leftOut: LeftOut,
  signal: AbortSignal,
): Promise<MoveOutcome> {
  const arena = Arena.attach(memory.arena);
  const control = new Control(memory.control);
  const shared = { arena, control, counters: control.row(row), signal };
  const attach = (handle?: BitmapHandle) => handle && Bitmap.attach(arena, handle);
  const plan = Bitmap.attach(arena, memory.plan);
  const remains = attach(memory.remains);
  const unread = attach(memory.unread);
  const leftOutMap = attach(memory.leftOutMap);
  try {
    if (compare !== undefined) await compareBoth(compare, ends, plan, shared);
    if (transfer === undefined || leftOutMap === undefined) return { flushed: true };
    const sender = digest ? new DigestSender(port) : undefined;
    const work = { plan, remains, unread, leftOut, leftOutMap, moved: sender?.moved };
    const outcome = await move({ ends, work, transfer, shared });
    sender?.flush();
    return outcome;
  } finally {
    leftOutMap?.free();
    unread?.free();
    remains?.free();
    plan.free();
    arena.detach();
  }
}

async function compareBoth(
  task: CompareTask,
  { source, target }: Ends,
  plan: Bitmap,
  shared: Shared,
): Promise<void> {
  const a = { device: source, data: Bitmap.attach(shared.arena, task.a) };
  const b = { device: target, data: Bitmap.attach(shared.arena, task.b) };
  const first = new FirstDifference(task.first);
  try {
    await compareShare({ a, b, pace: task.pace, plan, first, shared });
  } finally {
    a.data.free();
    b.data.free();
  }
}
