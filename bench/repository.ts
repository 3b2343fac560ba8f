/** Backup, restore and prune against what people use today, each a whole process as a user would start it. */
import { backupForRestic, backupTebibyte } from './repository/backup.js';
import { chainOfDays } from './repository/chain.js';
import { manyPoints } from './repository/points.js';
import { type BenchOptions, runWorkloads } from './support/bench.js';

export const benchRepository = (options: BenchOptions): Promise<void> =>
  runWorkloads([chainOfDays, backupTebibyte, backupForRestic, manyPoints], options);
