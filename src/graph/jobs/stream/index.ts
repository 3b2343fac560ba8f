import { checkRate, Job, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, type JobPart } from '../group/index.js';
import { checkStreamJob, type StreamJobOptions, type StreamJobReport } from './options.js';
import { StreamRun } from './stream-run.js';

export type { StreamJobOptions, StreamJobReport } from './options.js';

/** Begins a stream job; see `Graph.stream`. */
export function stream(changer: Changer, options: StreamJobOptions): Job<StreamJobReport> {
  const run = runOf(changer, options);
  return jobOf(run, options, async (control) => {
    await beginAlone(changer, run);
    return run.work(control);
  });
}

/** A stream job that begins in a transaction. */
export function streamPart(
  changer: Changer,
  options: StreamJobOptions,
): JobPart<Job<StreamJobReport>> {
  const run = runOf(changer, options);
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: () => jobOf(run, options, (control) => run.work(control), true),
  };
}

function runOf(changer: Changer, options: StreamJobOptions): StreamRun {
  const checked = checkStreamJob(options);
  checkRate(options.rate);
  return new StreamRun(changer, checked);
}

function jobOf(
  run: StreamRun,
  { rate, signal }: StreamJobOptions,
  work: (control: JobControl) => Promise<StreamJobReport>,
  hasBegun = false,
): Job<StreamJobReport> {
  const counted = () => run.counted();
  return new Job({ what: 'a stream', rate, signal, work, counted, hasBegun });
}
