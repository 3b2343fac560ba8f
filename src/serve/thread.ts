import type { Socket } from 'node:net';
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
  type WorkerOptions,
} from 'node:worker_threads';
import { fromWire, LacunaError, type WireError } from '../errors/index.js';
import type {
  BudgetPlan,
  ClientEvents,
  NbdConnection,
  NbdHost,
  ServerKeys,
} from '../nbd/server/index.js';
import { afterWaiting, guardKoffi, ownFile } from '../util/index.js';
import { HandedClient } from './handed-client.js';
import type { FromThread, ToThread } from './messages.js';
import { type CounterCells, removeThread } from './shared-counters.js';
import type { ServingWork } from './work.js';
import type { ThreadTask } from './worker.js';

export interface ThreadOptions {
  readonly work: ServingWork;
  /** The memory of all clients, what all threads count together, and which of them this is. */
  readonly plan: BudgetPlan;
  readonly cells: CounterCells;
  readonly thread: number;
  readonly keys: ServerKeys | undefined;
  /** Serves the clients that the thread cannot take. */
  readonly own: NbdHost;
  readonly onDeviceError: (error: unknown) => void;
  /** The last of its clients is gone. */
  readonly onIdle: () => void;
  /** It has ended without being told to, or never began. */
  readonly onLost: (error: LacunaError) => void;
}

/** A thread that has been told to end, and does not, is left alone after this time. */
const END_GRACE_MS = 3000;

/** One worker thread, from its start to its end, and its clients. */
export class Thread {
  readonly #options: ThreadOptions;
  readonly #clients = new Map<number, HandedClient>();
  readonly #port: MessagePort;
  readonly #finished: Promise<void>;
  #leave: () => void = nothing;
  /** Why it could not serve. */
  #failure: Error | undefined;
  #nextId = 0;
  #ending = false;

  constructor(options: ThreadOptions) {
    this.#options = options;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.on('message', (message: FromThread) => this.#hear(message));
    this.#finished = this.#run(port2);
  }

  /** Clients that it has, or is going to have. */
  get clientCount(): number {
    return this.#clients.size;
  }

  /** @param fd a copy of the socket's file descriptor, which the thread will own */
  accept(socket: Socket, fd: number, events: ClientEvents): NbdConnection {
    const id = this.#nextId++;
    const tell = (message: ToThread) => this.#port.postMessage(message);
    const client = new HandedClient({ id, socket, fd, events, tell });
    this.#clients.set(id, client);
    return client;
  }

  /**
   * Ends it, once its clients are gone. One that hangs in a call of the system is not waited for, but it will hear of its
   * end when that returns. It is not terminated: that would end nothing sooner, and one that is loading koffi would take
   * the whole process with it.
   */
  async end(): Promise<void> {
    this.#ending = true;
    this.#port.postMessage({ type: 'end' } satisfies ToThread);
    let stopWaiting = nothing;
    const grace = new Promise<void>((resolve) => {
      stopWaiting = afterWaiting(END_GRACE_MS, resolve);
    });
    await Promise.race([this.#finished, grace]);
    stopWaiting();
    this.#leave();
  }

  async #run(port: MessagePort): Promise<void> {
    const cause = await this.#live(port).catch((error: unknown) => error);
    // What it said last may still be on its way.
    for (let rest = this.#next(); rest !== undefined; rest = this.#next()) this.#hear(rest);
    this.#port.close();
    removeThread(this.#options.cells, this.#options.thread);
    const lost = lostTo(this.#failure ?? cause);
    for (const client of this.#clients.values()) client.lost(lost, this.#options.own);
    this.#clients.clear();
    if (!this.#ending) this.#options.onLost(lost);
  }

  /** Resolves when the thread is no more, and does nothing any more with what it was given, to what it threw. */
  async #live(port: MessagePort): Promise<unknown> {
    const { work, plan, cells, thread, keys } = this.#options;
    const workerData: ThreadTask = { work, plan, cells, thread, keys, port };
    guardKoffi();
    const worker = new Worker(ownFile('serve/worker.js'), {
      workerData,
      transferList: [port],
      ...forFiles(),
    });
    this.#leave = () => worker.unref();
    let failure: unknown;
    worker.on('error', (error) => {
      failure = error;
    });
    return new Promise((resolve) => {
      worker.on('exit', () => resolve(failure));
    });
  }

  #next(): FromThread | undefined {
    return receiveMessageOnPort(this.#port)?.message;
  }

  #hear(message: FromThread): void {
    if (message.type === 'deviceError') this.#options.onDeviceError(fromWire(message.error));
    else if (message.type === 'failed') this.#failure = fromWire(message.error);
    else if (message.type === 'taken') this.#clients.get(message.id)?.taken();
    else if (message.type === 'entered') this.#clients.get(message.id)?.entered();
    else if (message.type === 'crowded') this.#clients.get(message.id)?.crowded();
    else this.#closed(message.id, message.failure);
  }

  #closed(id: number, failure: WireError | undefined): void {
    const client = this.#clients.get(id);
    this.#clients.delete(id);
    client?.ended(failure && fromWire(failure));
    if (this.#clients.size === 0) this.#options.onIdle();
  }
}

/** Node refuses to run a file where it is told of which type the text of the program is, and threads are told the same. */
function forFiles(): Pick<WorkerOptions, 'execArgv'> {
  const isText = process.execArgv.some((argument) => argument.startsWith('--input-type'));
  return isText ? { execArgv: [] } : {};
}

function lostTo(cause: unknown): LacunaError {
  if (cause instanceof LacunaError) return cause;
  const why = cause instanceof Error ? ` (${cause.message})` : '';
  const message = `A serving thread ended${why}; the clients that it had may connect again`;
  return new LacunaError('ERR_WORKER_LOST', message, { cause });
}

function nothing(): void {}
