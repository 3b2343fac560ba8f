import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { DeviceRequestMessage } from '../../../block/index.js';
import type { JobMessage } from '../../../job/index.js';
import type { NbdClientMessage, NbdRequestMessage } from '../../../nbd/index.js';
import { Clients } from './clients.js';
import { SeriesTable } from './series.js';

/** What happened, for those who want to tell of it. */
export interface MeterListener {
  client(message: NbdClientMessage): void;
  job(message: JobMessage): void;
}

const RESOLUTION_MS = 20;

/** Listens to the channels of this thread (docs/diagnostics.md), and counts. */
export class Meters {
  /** Requests at the nodes of graphs. */
  readonly nodes = new SeriesTable();
  /** Requests of clients, by export. */
  readonly exports = new SeriesTable();
  readonly clients = new Clients();
  readonly #delays: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #listener: MeterListener;

  constructor(listener: MeterListener) {
    this.#listener = listener;
    this.#delays.enable();
    for (const [name, heed] of this.#channels) subscribe(name, heed);
  }

  close(): void {
    for (const [name, heed] of this.#channels) unsubscribe(name, heed);
    this.#delays.disable();
  }

  /**
   * How late timers were since this was asked the last time, in seconds, at the percentiles that are asked.
   */
  takeDelays(percentiles: readonly number[]): number[] {
    // It measures from one of its timers to the next.
    const late = (percentile: number) =>
      this.#delays.percentile(percentile) / 1e9 - RESOLUTION_MS / 1e3;
    const seconds = percentiles.map((percentile) => Math.max(0, late(percentile)));
    this.#delays.reset();
    return seconds;
  }

  readonly #deviceRequest = (message: unknown): void => {
    const { node, operation, length, durationMs, error } = message as DeviceRequestMessage;
    if (node === undefined) return;
    this.nodes.at(node, operation).add(length, durationMs / 1000, error !== undefined);
  };

  readonly #nbdRequest = (message: unknown): void => {
    const { export: name, operation, length, durationMs, errno } = message as NbdRequestMessage;
    this.exports.at(name, operation).add(length, durationMs / 1000, errno !== undefined);
  };

  readonly #client = (message: unknown): void => {
    this.clients.heed(message as NbdClientMessage);
    this.#listener.client(message as NbdClientMessage);
  };

  readonly #job = (message: unknown): void => this.#listener.job(message as JobMessage);

  readonly #channels: readonly (readonly [string, (message: unknown) => void])[] = [
    ['lacuna:device:request', this.#deviceRequest],
    ['lacuna:nbd-server:request', this.#nbdRequest],
    ['lacuna:nbd-server:client', this.#client],
    ['lacuna:job', this.#job],
  ];
}
