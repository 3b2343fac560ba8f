import { LacunaError } from '../../errors/index.js';
import type { EventStream, Monitor, QmpEventData, TypedEvent } from '../../qmp/index.js';

interface EventWatchOptions<Name extends keyof QmpEventData> {
  readonly monitor: Monitor;
  readonly events: readonly Name[];
  /** For so long QEMU may be gone. Default: that of the monitor. */
  readonly reconnectMs?: number;
  /**
   * Asks QEMU what events would have told.
   *
   * @param wasDeaf whether some may have been missed: not when the watch begins.
   */
  catchUp(wasDeaf: boolean): Promise<void>;
  hear(event: TypedEvent<Name>): Promise<void> | void;
  /** Called once, with what `catchUp` or `hear` has thrown, or why the connection was lost for good. */
  lost(error: unknown): void;
}

/** Hears events of a QEMU, also after its connection was lost and made again, until it is stopped or fails. */
export class EventWatch<Name extends keyof QmpEventData> {
  readonly #options: EventWatchOptions<Name>;
  #events: EventStream<TypedEvent<Name>> | undefined;
  #isStopped = false;

  constructor(options: EventWatchOptions<Name>) {
    this.#options = options;
  }

  /** Listens from now on. */
  start(): void {
    void this.#listen();
  }

  stop(): void {
    this.#isStopped = true;
    this.#events?.close();
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  async #listen(): Promise<void> {
    const { monitor, events: names, catchUp, hear } = this.#options;
    for (let wasDeaf = false; !this.#isStopped; wasDeaf = true) {
      const events = monitor.events(names);
      this.#events = events;
      try {
        // What was missed is asked once the rest can be heard.
        await catchUp(wasDeaf);
        for await (const event of events) await hear(event);
      } catch (error) {
        if (!this.#isStopped) await this.#recover(error);
      }
    }
  }

  async #recover(why: unknown): Promise<void> {
    const { monitor, reconnectMs, lost } = this.#options;
    try {
      if (monitor.isConnected || !isLoss(why)) throw why;
      await monitor.reconnect({ timeoutMs: reconnectMs });
    } catch (error) {
      if (this.#isStopped) return;
      this.stop();
      lost(error);
    }
  }
}

function isLoss(error: unknown): boolean {
  if (!(error instanceof LacunaError)) return false;
  return error.code === 'ERR_QMP_DISCONNECTED' || error.code === 'ERR_QMP_UNANSWERED';
}
