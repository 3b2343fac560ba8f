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
import { move, type Transfer } from './mover.js';

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
  remains?: BitmapHandle | undefined;
  control: SharedArrayBuffer;
  thread: number;
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
  error?: WireError;
}

export default async function work(task: WorkerTask): Promise<WorkerResult> {
  const abort = new AbortController();
  let opened = false;
  let drained = false;
  task.port.on('message', (signal: WorkerSignal) => {
    if (signal === 'drained') drained = true;
    if (signal === 'stop' || !opened) abort.abort();
  });
  const devices: Device[] = [];
  try {
    devices.push(await openAgain(task.source, { signal: abort.signal }));
    devices.push(await openAgain(task.target, { writable: true, signal: abort.signal }));
    // A connection may come up at the very moment when it is not needed any more.
    if (drained) return { opened };
    opened = true;
    await moveShare(task, devices[0], devices[1], abort.signal);
    return { opened };
  } catch (error) {
    return !opened && drained ? { opened } : { opened, error: toWire(error) };
  } finally {
    await Promise.allSettled(devices.map((device) => device.close()));
    task.port.close();
  }
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
  signal: AbortSignal,
): Promise<void> {
  const arena = Arena.attach(task.arena);
  const control = new Control(task.control);
  const counters = control.row(task.thread);
  const plan = Bitmap.attach(arena, task.plan);
  const remains = task.remains && Bitmap.attach(arena, task.remains);
  const sender = task.digest ? new DigestSender(task.port) : undefined;
  const { moved } = sender ?? {};
  const shared = { plan, remains, arena, control, counters, moved };
  try {
    await move({ ...task.transfer, ...shared, source, target, signal });
    sender?.flush();
  } finally {
    remains?.free();
    plan.free();
    arena.detach();
  }
}
