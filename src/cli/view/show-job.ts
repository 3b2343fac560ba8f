/** How the command shows a job while it runs. */

import { LacunaError } from '../../errors/index.js';
import type { Job, JobProgress } from '../../job/index.js';
import { noteStep, type Shell } from '../shell/index.js';
import { ProgressBar } from '../text/index.js';
import { pauseBySignal, steerBySignals } from './steer-by-signals.js';

/** What people read of a job that does not do what it is there for. */
const STATES: Partial<Record<JobProgress['state'], string>> = {
  paused: 'Paused',
  failed: 'Failed',
  stopped: 'Stopped',
};

/** Shows a job with a bar, where there is a terminal for one, and calls `tell` each time; returns its report. */
export async function showJob<Report, Progress extends JobProgress>(
  job: Job<Report, Progress>,
  shell: Shell,
  phaseOf: (progress: Progress) => string,
  tell?: (progress: Progress) => Promise<void>,
): Promise<Report> {
  const bar = new ProgressBar(phaseOf(job.progress()), shell);
  let step = '';
  try {
    for await (const progress of job) {
      const phase = STATES[progress.state] ?? phaseOf(progress);
      if (phase !== step) noteStep(phase, shell);
      step = phase;
      bar.show({ ...progress, phase, document: progressDocument(progress) });
      await tell?.(progress);
    }
    return await job;
  } finally {
    bar.stop();
  }
}

/** A moment of a job for programs; an error's own fields are not for JSON. */
export function progressDocument({ error, ...progress }: JobProgress): object {
  if (error === undefined) return progress;
  const code = error instanceof LacunaError ? error.code : undefined;
  return { ...progress, error: { code, message: error.message } };
}

/** Shows a job that writes: the first interruption lets it finish what is in flight. */
export async function showWriting<Report, Progress extends JobProgress>(
  job: Job<Report, Progress>,
  phase: string,
  shell: Shell,
): Promise<Report> {
  const letGo = steerBySignals(job, shell);
  try {
    return await showJob(job, shell, () => phase);
  } finally {
    letGo();
  }
}

/** Shows a job that only reads, and was begun with the shell's signal: an interruption ends it at once. */
export async function showReading<Report, Progress extends JobProgress>(
  job: Job<Report, Progress>,
  phase: string,
  shell: Shell,
): Promise<Report> {
  const letGo = pauseBySignal(job, shell);
  try {
    return await showJob(job, shell, () => phase);
  } finally {
    letGo();
  }
}
