import type { Range } from '../../block/index.js';
import { Job, type JobControl, type JobOptions, type JobProgress } from '../../job/index.js';

/** A moment of a copy from or to a stream. `doneBytes` are bytes of the stream; nobody knows how long one is that is read. */
export interface StreamProgress extends JobProgress {
  /** Bytes written as data. */
  movedBytes: number;
  /** Bytes written as zeroes. */
  zeroedBytes: number;
  /** Bytes never touched, because they are zero on both sides. */
  skippedBytes: number;
}

/** The report of a copy from or to a stream. */
export interface StreamReport {
  /** Bytes of the stream. */
  size: number;
  /** Bytes written as data. */
  movedBytes: number;
  /** Bytes written as zeroes, without moving data. */
  zeroedBytes: number;
  /** Bytes never touched, because they are zero on both sides. */
  skippedBytes: number;
  /** Ranges of the source that are lost and were taken for zeroes; see `missing` of a CopyReport. */
  missing: Range[];
  /** Milliseconds from the call to the report. */
  durationMs: number;
  /** What a person should know although it succeeded. */
  warnings: string[];
}

/** What the work on a stream has counted so far, and what its failure has left. */
export class StreamState {
  totalBytes = 0;
  readonly counted = { movedBytes: 0, zeroedBytes: 0, skippedBytes: 0 };
  /** Bytes of the stream that are done with. */
  doneBytes = 0;
  /** What a failure has left, once it has ended the work. */
  unfinished: string | undefined;
}

/** A copy from or to a stream as a job. Its rate counts all bytes of the stream, zeroes included. */
export class StreamJob extends Job<StreamReport, StreamProgress> {
  readonly #state: StreamState;

  /** @internal Use `copyFromStream` or `copyToStream`. */
  constructor(
    { rate, signal }: JobOptions,
    work: (job: JobControl, state: StreamState) => Promise<StreamReport>,
  ) {
    const state = new StreamState();
    super({
      what: 'a copy of a stream',
      rate,
      signal,
      work: (job) => work(job, state),
      counted: () => {
        const { totalBytes, doneBytes, counted } = state;
        return { totalBytes, doneBytes, ...counted };
      },
    });
    this.#state = state;
  }

  /** After a failure: the file that holds what was written until then, and is not whole; undefined where there is none. */
  get unfinished(): string | undefined {
    return this.#state.unfinished;
  }
}
