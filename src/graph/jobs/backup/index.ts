import { checkRate, Job } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { BackupRun } from './backup-run.js';
import { type BackupJobOptions, type BackupJobReport, checkBackupJob } from './options.js';

export type {
  BackupJobOptions,
  BackupJobReport,
  BackupPair,
} from './options.js';

/** Begins a backup job; see `Graph.backup`. */
export function backup(changer: Changer, options: BackupJobOptions): Job<BackupJobReport> {
  const checked = checkBackupJob(options);
  checkRate(options.rate);
  const run = new BackupRun(changer, checked);
  return new Job<BackupJobReport>({
    what: 'a backup',
    rate: options.rate,
    signal: options.signal,
    work: (control) => run.work(control),
    counted: () => run.counted(),
  });
}
