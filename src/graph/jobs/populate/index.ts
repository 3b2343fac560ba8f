import type { JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, GraphJob, JobGroup, type JobPart } from '../group/index.js';
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
export function populate(
  changer: Changer,
  options: PopulateJobOptions,
): GraphJob<PopulateJobReport> {
  const run = new PopulateRun(changer, checkPopulateJob(options));
  return jobOf(run, options, new JobGroup(changer), () => beginAlone(changer, run));
}

/** A populate job that begins in a transaction. */
export function populatePart(
  changer: Changer,
  options: PopulateJobOptions,
): JobPart<GraphJob<PopulateJobReport>> {
  const run = new PopulateRun(changer, checkPopulateJob(options));
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => jobOf(run, options, group),
  };
}

/** @param begin what happens before its work, unless that was done. */
function jobOf(
  run: PopulateRun,
  { signal, autoFinalize, autoDismiss }: PopulateJobOptions,
  group: JobGroup,
  begin?: () => Promise<void>,
): GraphJob<PopulateJobReport> {
  const member = group.join(autoFinalize);
  const work = async (control: JobControl) => {
    await begin?.();
    return run.work(control, member);
  };
  const counted = () => run.counted();
  const hasBegun = begin === undefined;
  const job = new GraphJob({
    ...{ what: 'a populate', signal, autoDismiss, member, work, counted, hasBegun },
  });
  member.stop = () => job.stop();
  return job;
}
