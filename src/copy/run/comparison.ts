/** Compares two devices by what is known of each, in as many threads as that is worth. Runs on the caller's thread. */
import { availableParallelism } from 'node:os';
import type { Bitmap } from '../../bitmap/index.js';
import { isShareable, plainFile, shareDevice } from '../../block/index.js';
import type { JobControl } from '../../job/index.js';
import type { Arena } from '../../wasm/index.js';
import { Control, FirstDifference } from '../control/index.js';
import { type ComparedSide, type ComparePace, compareShare } from '../move/index.js';
import { type TransferOptions, withoutSide } from '../options/index.js';
import { MOST_IN_FLIGHT, powerBelow } from './transfer.js';

const KiB = 1024;
const MiB = 1024 * KiB;

const MOST_THREADS = 4;
const WINDOWS = { least: 4 * MiB, most: 128 * MiB, perThread: 16 };

/**
 * Files answer at once, so one piece at a time, small enough to be compared in the processor's cache. Less than
 * `worthAThread` is compared before a worker thread has even started.
 */
const FILES = { requests: 1, requestSize: 512 * KiB, worthAThread: 2048 * MiB };
const OTHERS = { requests: 8, requestSize: 1024 * KiB, worthAThread: 128 * MiB };

export interface ComparisonOptions {
  transfer: TransferOptions;
  a: ComparedSide;
  b: ComparedSide;
  /** Where either side may be anything but zero, in the arena of both sides' bitmaps. Empty afterwards. */
  plan: Bitmap;
  arena: Arena;
  /** Steers it. It ends at once where the job is to stop: it makes nothing that would be left unfinished. */
  job: JobControl;
}

export class Comparison {
  /** Bytes that have to be compared. */
  readonly totalBytes: number;
  /** Worker threads; 0 when the calling thread does it all. */
  readonly threads: number;
  readonly #options: ComparisonOptions;
  readonly #control: Control;

  constructor(options: ComparisonOptions) {
    this.#options = options;
    this.totalBytes = options.plan.dirtyBytes;
    this.threads = chooseThreads(options, this.totalBytes);
    this.#control = Control.create(this.threads + 1);
  }

  get comparedBytes(): number {
    return this.#control.total().movedBytes;
  }

  /** Finds the first byte that differs; returns it, if there is one, and warnings. */
  async run(): Promise<{ offset?: number; warnings: string[] }> {
    const first = new FirstDifference();
    const letGo = this.#options.job.steer(this.#control);
    try {
      const warnings = await (this.threads === 0 ? this.#here(first) : this.#inThreads(first));
      return { ...(first.found && { offset: first.offset }), warnings };
    } finally {
      letGo();
    }
  }

  async #here(first: FirstDifference): Promise<string[]> {
    const { a, b, plan, arena, job } = this.#options;
    const control = this.#control;
    const shared = { arena, control, counters: control.row(0), signal: job.ending };
    await compareShare({ a, b, pace: this.#pace, plan, first, shared });
    return [];
  }

  async #inThreads(first: FirstDifference): Promise<string[]> {
    const { a, b, plan, arena, job } = this.#options;
    // Loaded when it is needed: the pool takes longer to load than a small comparison takes.
    const { workInThreads } = await import('../threads/crew.js');
    const { error, warnings } = await workInThreads({
      threads: this.threads,
      ends: { source: shareDevice(a.device), target: shareDevice(b.device) },
      task: {
        compare: { pace: this.#pace, a: a.data.handle, b: b.data.handle, first: first.memory },
      },
      memory: { arena: arena.shared, plan: plan.handle, control: this.#control.memory },
      control: this.#control,
      signal: job.ending,
    });
    if (error !== undefined) throw withoutSide(error);
    return warnings;
  }

  get #pace(): ComparePace {
    return choosePace(this.#options, this.threads, this.totalBytes);
  }
}

/** How each of `threads` threads goes about its share of so many bytes; each request takes a slot for either side. */
export function choosePace(
  { a, b, transfer: { requests, requestSize } }: Pick<ComparisonOptions, 'a' | 'b' | 'transfer'>,
  threads: number,
  bytes: number,
): ComparePace {
  const defaults = defaultsFor(a, b);
  const lanes = Math.max(1, threads) * (requests ?? defaults.requests);
  const share = Math.ceil(bytes / (Math.max(1, threads) * WINDOWS.perThread));
  return {
    requests: requests ?? defaults.requests,
    requestSize: requestSize ?? Math.min(defaults.requestSize, powerBelow(MOST_IN_FLIGHT / lanes)),
    windowSize: Math.min(WINDOWS.most, Math.max(WINDOWS.least, share)),
  };
}

function chooseThreads({ a, b, transfer: { threads } }: ComparisonOptions, bytes: number): number {
  if (!isShareable(a.device) || !isShareable(b.device)) return 0;
  if (threads !== undefined) return threads;
  const { worthAThread } = defaultsFor(a, b);
  return bytes < worthAThread ? 0 : Math.min(MOST_THREADS, availableParallelism());
}

function defaultsFor(...sides: readonly ComparedSide[]): typeof FILES {
  return sides.every(({ device }) => plainFile(device.description) !== undefined) ? FILES : OTHERS;
}
