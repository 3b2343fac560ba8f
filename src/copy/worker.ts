/** One worker thread of a copy: opens its own connection to both sides and moves its share of the plan. */
import type { MessagePort } from 'node:worker_threads';
import { Bitmap, type BitmapHandle } from '../bitmap/index.js';
import {
  type Device,
  type DeviceDescription,
  type OpenOptions,
  openDevice,
} from '../block/index.js';
import { LacunaError, toWire, type WireError } from '../errors/index.js';
import { Arena, type SharedArena } from '../wasm/index.js';
import { Control } from './control.js';
import { DigestSender } from './digest-sender.js';
import { SideError, withoutSide, withSide } from './error-policy.js';
import { LeftOut } from './left-out.js';
import { type MoveOutcome, move, type Transfer } from './mover.js';
import type { LeftOutRange, Side } from './options.js';

/** A device that the caller has open, for a worker to open too. */
export interface DeviceAgain {
  description: DeviceDescription;
  /** Bytes that it had when the copy was planned. */
  size: number;
}

/**
 * What a worker is told when it starts. Nothing else is sent to it but a {@link WorkerSignal}, and nothing is sent
 * by it but its result and, if asked, digests.
 */
export interface WorkerTask {
  arena: SharedArena;
  plan: BitmapHandle;
  leftOutMap: BitmapHandle;
  remains?: BitmapHandle | undefined;
  control: SharedArrayBuffer;
  /** Its row of counters. */
  row: number;
  source: DeviceAgain;
  target: DeviceAgain;
  transfer: Transfer;
  /** Send the digests of the blocks that were moved. */
  digest: boolean;
  port: MessagePort;
}

/** `stop`: end now. `drained`: the plan is empty, so a connection that is still being made is not needed. */
export type WorkerSignal = 'stop' | 'drained';

export interface WorkerResult {
  /** Whether both devices could be opened; where not, others may do the work. */
  opened: boolean;
  /** See `MoveOutcome`. */
  flushed: boolean;
  leftOut: { ranges: readonly LeftOutRange[]; more: number };
  error?: WireError;
  /** Where the error happened, if that is known. */
  side?: Side;
}

const NOTHING_LEFT_OUT = { ranges: [], more: 0 };

export default async function work(task: WorkerTask): Promise<WorkerResult> {
  const abort = new AbortController();
  let opened = false;
  let drained = false;
  task.port.on('message', (signal: WorkerSignal) => {
    if (signal === 'drained') drained = true;
    if (signal === 'stop' || !opened) abort.abort();
  });
  const unused = { flushed: true, leftOut: NOTHING_LEFT_OUT };
  const devices: Device[] = [];
  try {
    devices.push(await openAgain(task.source, { signal: abort.signal }));
    devices.push(await openAgain(task.target, { writable: true, signal: abort.signal }));
    // A connection may come up at the very moment when it is not needed any more.
    if (drained) return { opened, ...unused };
    opened = true;
    const leftOut = new LeftOut();
    const outcome = await moveShare(task, devices[0], devices[1], leftOut, abort.signal);
    const { ranges, more } = leftOut;
    return { opened, leftOut: { ranges, more }, ...tell(outcome) };
  } catch (error) {
    if (!opened && drained) return { opened, ...unused };
    if (opened) return { opened, ...unused, flushed: false, error: toWire(error) };
    const side = devices.length === 0 ? 'source' : 'target';
    return { opened, ...unused, ...tell({ flushed: true, error: withSide(side, error) }) };
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

async function openAgain(again: DeviceAgain, options: OpenOptions): Promise<Device> {
  const device = await openDevice(again.description, options);
  if (device.size === again.size) return device;
  await device.close();
  const sizes = `it had ${again.size} bytes when the copy began and has ${device.size} now`;
  const message = `${device.name} changed its size: ${sizes}; copy it again while nobody resizes it`;
  throw new LacunaError('ERR_DEVICE_SHORT', message, { device: device.name });
}

async function moveShare(
  task: WorkerTask,
  source: Device,
  target: Device,
  leftOut: LeftOut,
  signal: AbortSignal,
): Promise<MoveOutcome> {
  const arena = Arena.attach(task.arena);
  const control = new Control(task.control);
  const counters = control.row(task.row);
  const plan = Bitmap.attach(arena, task.plan);
  const leftOutMap = Bitmap.attach(arena, task.leftOutMap);
  const remains = task.remains && Bitmap.attach(arena, task.remains);
  const sender = task.digest ? new DigestSender(task.port) : undefined;
  const { moved } = sender ?? {};
  const marks = { plan, remains, leftOut, leftOutMap };
  const shared = { ...marks, arena, control, counters, moved };
  try {
    const outcome = await move({ ...task.transfer, ...shared, source, target, signal });
    sender?.flush();
    return outcome;
  } finally {
    remains?.free();
    plan.free();
    leftOutMap.free();
    arena.detach();
  }
}
