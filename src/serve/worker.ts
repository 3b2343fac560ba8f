/** A thread that serves clients: opens the devices anew, and takes over the sockets that it is told of. */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { type MessagePort, workerData } from 'node:worker_threads';
import { Bitmap } from '../bitmap/bits/index.js';
import { type BlockDevice, openShared, type SharedDevice } from '../block/index.js';
import { fromWire, type LacunaError, toWire } from '../errors/index.js';
import {
  type BudgetPlan,
  MemoryBudget,
  type NbdConnection,
  NbdService,
  type ServerKeys,
} from '../nbd/server/index.js';
import { Arena, type SharedArena } from '../wasm/index.js';
import type { FromThread, ToThread } from './messages.js';
import { type CounterCells, countersOf } from './shared-counters.js';
import type { ServingWork, SharedBitmap } from './work.js';

export interface ThreadTask {
  readonly work: ServingWork;
  /** The memory of all clients, what all threads count together, and which of them this is. */
  readonly plan: BudgetPlan;
  readonly cells: CounterCells;
  readonly thread: number;
  readonly keys: ServerKeys | undefined;
  /** Hears {@link ToThread}, and tells {@link FromThread}. */
  readonly port: MessagePort;
}

async function serve({ work, plan, cells, thread, keys, port }: ThreadTask): Promise<void> {
  const tell = (message: FromThread) => port.postMessage(message);
  const held = new Held();
  try {
    const exports = [];
    for (const { name, description, device, bitmaps } of work.exports) {
      const opened = await held.open(device);
      exports.push({ name, description, device: opened, bitmaps: held.attach(bitmaps) });
    }
    const budget = new MemoryBudget(plan, countersOf(cells, thread));
    const onDeviceError = (error: unknown) => tell({ type: 'deviceError', error: toWire(error) });
    const service = new NbdService({ ...work, exports, onDeviceError }, work.tls, budget);
    service.start(keys);
    await serveUntilEnd(service, port, tell);
  } catch (error) {
    tell({ type: 'failed', error: toWire(error) });
  } finally {
    await held.close();
    port.close();
  }
}

/** Does what it is told, until that is to end. */
function serveUntilEnd(
  service: NbdService,
  port: MessagePort,
  tell: (message: FromThread) => void,
): Promise<void> {
  const clients = new Map<number, NbdConnection>();
  const accept = (id: number, fd: number) => {
    // Said before the socket exists: nobody may ever close the file descriptor twice.
    tell({ type: 'taken', id });
    const closed = (failure: unknown) => {
      clients.delete(id);
      tell({ type: 'closed', id, ...(failure !== undefined && { failure: toWire(failure) }) });
    };
    const entered = () => tell({ type: 'entered', id });
    const crowded = () => tell({ type: 'crowded', id });
    const socket = adopt(fd);
    if (socket === undefined) closed(undefined);
    else clients.set(id, service.accept(socket, { entered, crowded, closed }));
  };
  return new Promise((resolve) => {
    port.on('close', resolve);
    port.on('message', (message: ToThread) => {
      if (message.type === 'end') resolve();
      else if (message.type === 'accept') accept(message.id, message.fd);
      else if (message.type === 'shutdown') clients.get(message.id)?.shutdown();
      else clients.get(message.id)?.destroy(fromWire(message.failure) as LacunaError);
    });
  });
}

/** The socket behind a file descriptor; undefined where the system does not give it, because the client is gone. */
function adopt(fd: number): Socket | undefined {
  try {
    return new Socket({ fd, allowHalfOpen: true, pauseOnCreate: true } as object);
  } catch {
    closeSync(fd);
    return undefined;
  }
}

/** What a thread holds while it serves. */
class Held {
  readonly #devices: BlockDevice[] = [];
  readonly #bitmaps: Bitmap[] = [];
  readonly #arenas = new Map<SharedArena, Arena>();

  async open(shared: SharedDevice): Promise<BlockDevice> {
    const device = await openShared(shared, {});
    this.#devices.push(device);
    return device;
  }

  attach(bitmaps: readonly SharedBitmap[]): Record<string, Bitmap> {
    // No name is special here, not even __proto__.
    const attached: Record<string, Bitmap> = Object.create(null);
    for (const { name, arena, handle } of bitmaps) {
      attached[name] = Bitmap.attach(this.#arena(arena), handle);
      this.#bitmaps.push(attached[name]);
    }
    return attached;
  }

  async close(): Promise<void> {
    for (const bitmap of this.#bitmaps) bitmap.free();
    for (const arena of this.#arenas.values()) arena.detach();
    await Promise.allSettled(this.#devices.map((device) => device.close()));
  }

  #arena(shared: SharedArena): Arena {
    const arena = this.#arenas.get(shared) ?? Arena.attach(shared);
    this.#arenas.set(shared, arena);
    return arena;
  }
}

await serve(workerData);
