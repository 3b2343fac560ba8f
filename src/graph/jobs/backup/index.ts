import { checkRate, Job, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, type JobPart } from '../group/index.js';
import { BackupRun } from './backup-run.js';
import { type BackupJobOptions, type BackupJobReport, checkBackupJob } from './options.js';

export type {
  BackupJobOptions,
  BackupJobReport,
  BackupPair,
} from './options.js';

/** Begins a backup job; see `Graph.backup`. */
export function backup(changer: Changer, options: BackupJobOptions): Job<BackupJobReport> {
  const run = runOf(changer, options);
  return jobOf(run, options, async (control) => {
    await beginAlone(changer, run);
    return run.work(control);
  });
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
): JobPart<Job<BackupJobReport>> {
  const run = runOf(changer, options);
  if (isGrouped && options.sync === 'none') {
    throw new TypeError('sync none ends only when it is stopped: it cannot end with other jobs');
  }
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

function runOf(changer: Changer, options: BackupJobOptions): BackupRun {
  const checked = checkBackupJob(options);
  checkRate(options.rate);
  return new BackupRun(changer, checked);
}

function jobOf(
  run: BackupRun,
  { rate, signal }: BackupJobOptions,
  work: (control: JobControl) => Promise<BackupJobReport>,
  hasBegun = false,
): Job<BackupJobReport> {
  const counted = () => run.counted();
  return new Job({ what: 'a backup', rate, signal, work, counted, hasBegun });
}
