/** How the command shows the jobs of a repository. */
import type { Job } from '../../job/index.js';
import type { RepositoryProgress, RepositoryStep } from '../../repository/index.js';
import type { Shell } from '../shell/index.js';
import { showJob } from './show-job.js';
import { steerBySignals } from './steer-by-signals.js';

const STEPS: Record<RepositoryStep, string> = {
  prepare: 'Preparing',
  push: 'Receiving',
  compare: 'Comparing',
  copy: 'Copying',
  hash: 'Hashing',
  read: 'Verifying',
  merge: 'Merging',
  commit: 'Finishing',
  done: 'Done',
};

/** Shows the progress of a job with its machine, point and disk; the first interruption lets it finish what is in flight. */
export async function showRepositoryJob<Report>(
  job: Job<Report, RepositoryProgress>,
  shell: Shell,
): Promise<Report> {
  const letGo = steerBySignals(job, shell);
  const phaseOf = ({ step, machine, point, disk }: RepositoryProgress) => {
    const about = point === 0 ? machine : `${machine}/${point}`;
    return [STEPS[step], about, disk].filter(Boolean).join(' ');
  };
  try {
    return await showJob(job, shell, phaseOf);
  } finally {
    letGo();
  }
}
