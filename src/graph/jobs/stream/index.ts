import { checkRate, Job } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { checkStreamJob, type StreamJobOptions, type StreamJobReport } from './options.js';
import { StreamRun } from './stream-run.js';

export type { StreamJobOptions, StreamJobReport } from './options.js';

/** Begins a stream job; see `Graph.stream`. */
export function stream(changer: Changer, options: StreamJobOptions): Job<StreamJobReport> {
  const checked = checkStreamJob(options);
  checkRate(options.rate);
  const run = new StreamRun(changer, checked);
  return new Job<StreamJobReport>({
    what: 'a stream',
    rate: options.rate,
    signal: options.signal,
    work: (control) => run.work(control),
    counted: () => run.counted(),
  });
}
