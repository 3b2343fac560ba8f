import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, GraphJob, JobGroup, type JobPart } from '../group/index.js';
import { checkStreamJob, type StreamJobOptions, type StreamJobReport } from './options.js';
import { StreamRun } from './stream-run.js';

export type { StreamJobOptions, StreamJobReport } from './options.js';

/** Begins a stream job; see `Graph.stream`. */
export function stream(changer: Changer, options: StreamJobOptions): GraphJob<StreamJobReport> {
  const run = runOf(changer, options);
  return jobOf(run, options, new JobGroup(changer), () => beginAlone(changer, run));
}

/** A stream job that begins in a transaction. */
export function streamPart(
  changer: Changer,
  options: StreamJobOptions,
): JobPart<GraphJob<StreamJobReport>> {
  const run = runOf(changer, options);
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => jobOf(run, options, group),
  };
}

function runOf(changer: Changer, options: StreamJobOptions): StreamRun {
  const checked = checkStreamJob(options);
  checkRate(options.rate);
  return new StreamRun(changer, checked);
}

/** @param begin what happens before its work, unless that was done. */
function jobOf(
  run: StreamRun,
  { rate, signal, autoFinalize, autoDismiss }: StreamJobOptions,
  group: JobGroup,
  begin?: () => Promise<void>,
): GraphJob<StreamJobReport> {
  const member = group.join(autoFinalize);
  const work = async (control: JobControl) => {
    await begin?.();
    return run.work(control, member);
  };
  const counted = () => run.counted();
  const hasBegun = begin === undefined;
  const job = new GraphJob({
    ...{ what: 'a stream', rate, signal, autoDismiss, member, work, counted, hasBegun },
  });
  member.stop = () => job.stop();
  return job;
}
