import type { Socket } from 'node:net';
import { LacunaError } from '../errors/index.js';
import type {
  BudgetPlan,
  ClientEvents,
  NbdConnection,
  NbdHost,
  ServerKeys,
} from '../nbd/server/index.js';
import type { CopyDescriptor } from './copy-descriptor.js';
import type { CounterCells } from './shared-counters.js';
import { Thread } from './thread.js';
import type { ServingWork } from './work.js';

export interface ThreadHostOptions {
  /** Serves in the server's own thread. */
  readonly own: NbdHost;
  readonly work: ServingWork;
  /** The memory of all clients, what all threads count together, and which of them this is. */
  readonly plan: BudgetPlan;
  readonly cells: CounterCells;
  readonly thread: number;
  readonly copyDescriptor: CopyDescriptor;
  /** Never throws. */
  readonly onDeviceError: (error: unknown) => void;
}

/** A thread without clients ends after this time; whoever has several connections often comes again. */
const IDLE_MS = 5000;

/**
 * Serves clients in another thread, which is started for the first of them and ends some time after the last. A thread
 * that cannot serve is not tried again; the server's own thread takes its clients.
 */
export class ThreadHost implements NbdHost {
  readonly #options: ThreadHostOptions;
  #keys: ServerKeys | undefined;
  #thread: Thread | undefined;
  #idle: NodeJS.Timeout | undefined;
  #unusable = false;
  /** The threads that it has had are no more. */
  #ended: Promise<void> = Promise.resolve();

  constructor(options: ThreadHostOptions) {
    this.#options = options;
  }

  get connectionCount(): number {
    return this.#unusable ? Number.POSITIVE_INFINITY : (this.#thread?.clientCount ?? 0);
  }

  start(keys: ServerKeys | undefined): void {
    this.#keys = keys;
  }

  accept(socket: Socket, events: ClientEvents): NbdConnection {
    const fd = this.#options.copyDescriptor(socket);
    if (fd === undefined) return this.#options.own.accept(socket, events);
    clearTimeout(this.#idle);
    this.#thread ??= this.#begin();
    return this.#thread.accept(socket, fd, events);
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    this.#end();
    await this.#ended;
  }

  #begin(): Thread {
    const { work, plan, cells, thread, own, onDeviceError } = this.#options;
    return new Thread({
      work,
      plan,
      cells,
      thread,
      keys: this.#keys,
      own,
      onDeviceError,
      onIdle: () => {
        this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
      },
      onLost: (error) => this.#lost(error),
    });
  }

  #end(): void {
    const thread = this.#thread;
    this.#thread = undefined;
    this.#ended = Promise.all([this.#ended, thread?.end()]).then(nothing);
  }

  #lost(cause: LacunaError): void {
    this.#unusable = true;
    this.#thread = undefined;
    const message = `One thread less serves clients: ${cause.message}`;
    this.#options.onDeviceError(new LacunaError(cause.code, message, { cause }));
  }
}

function nothing(): void {}
