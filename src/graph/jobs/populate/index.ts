import { Job } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { checkPopulateJob, type PopulateJobOptions, type PopulateJobReport } from './options.js';
import { PopulateRun } from './populate-run.js';

export type {
  PopulateFrom,
  PopulateJobOptions,
  PopulateJobReport,
  PopulateOperation,
  PopulateSource,
  PopulateTarget,
} from './options.js';

/** Begins a populate job; see `Graph.populate`. */
export function populate(changer: Changer, options: PopulateJobOptions): Job<PopulateJobReport> {
  const run = new PopulateRun(changer, checkPopulateJob(options));
  return new Job<PopulateJobReport>({
    what: 'a populate',
    signal: options.signal,
    work: (control) => run.work(control),
    counted: () => run.counted(),
  });
}
