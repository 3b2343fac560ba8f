import { Job, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, type JobPart } from '../group/index.js';
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
  return jobOf(run, options, async (control) => {
    await beginAlone(changer, run);
    return run.work(control);
  });
}

/** A populate job that begins in a transaction. */
export function populatePart(
  changer: Changer,
  options: PopulateJobOptions,
): JobPart<Job<PopulateJobReport>> {
  const run = new PopulateRun(changer, checkPopulateJob(options));
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => {
      const job = jobOf(run, options, (control) => run.work(control, group), true);
      group?.add(() => job.stop());
      return job;
    },
  };
}

function jobOf(
  run: PopulateRun,
  { signal }: PopulateJobOptions,
  work: (control: JobControl) => Promise<PopulateJobReport>,
  hasBegun = false,
): Job<PopulateJobReport> {
  return new Job({ what: 'a populate', signal, work, counted: () => run.counted(), hasBegun });
}
