import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, GraphJob, JobGroup, type JobPart } from '../group/index.js';
import { BackupRun } from './backup-run.js';
import { type BackupJobOptions, type BackupJobReport, checkBackupJob } from './options.js';

export type {
  BackupJobOptions,
  BackupJobReport,
  BackupPair,
} from './options.js';

/** Begins a backup job; see `Graph.backup`. */
export function backup(changer: Changer, options: BackupJobOptions): GraphJob<BackupJobReport> {
  const run = runOf(changer, options);
  return jobOf(run, options, new JobGroup(changer), () => beginAlone(changer, run));
}

/**
 * A backup job that begins in a transaction.
 *
 * @param isGrouped it ends with other jobs.
 */
export function backupPart(
  changer: Changer,
  options: BackupJobOptions,
  isGrouped: boolean,
): JobPart<GraphJob<BackupJobReport>> {
  const run = runOf(changer, options);
  if (isGrouped && options.sync === 'none') {
    throw new TypeError('sync none ends only when it is stopped: it cannot end with other jobs');
  }
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => jobOf(run, options, group),
  };
}

function runOf(changer: Changer, options: BackupJobOptions): BackupRun {
  const checked = checkBackupJob(options);
  checkRate(options.rate);
  return new BackupRun(changer, checked);
}

/** @param begin what happens before its work, unless that was done. */
function jobOf(
  run: BackupRun,
  { rate, signal, autoFinalize, autoDismiss }: BackupJobOptions,
  group: JobGroup,
  begin?: () => Promise<void>,
): GraphJob<BackupJobReport> {
  const member = group.join(autoFinalize);
  const work = async (control: JobControl) => {
    await begin?.();
    return run.work(control, member);
  };
  const counted = () => run.counted();
  const hasBegun = begin === undefined;
  const job = new GraphJob({
    ...{ what: 'a backup', rate, signal, autoDismiss, member, work, counted, hasBegun },
  });
  member.stop = () => job.stop();
  return job;
}
