/** What the command says of a copy while it runs, and when it has ended. */
import type { CopyJob, CopyProgress, CopyReport } from '../../copy/index.js';
import { counted } from '../../util/index.js';
import type { Shell } from '../shell/index.js';
import { formatBytes, formatDuration, formatRate } from '../text/index.js';
import { showJob } from './show-job.js';

const PHASES: Record<CopyProgress['phase'], string> = {
  plan: 'Planning',
  zero: 'Zeroing',
  move: 'Copying',
  flush: 'Flushing',
  verify: 'Verifying',
  done: 'Done',
};

/** Follows a copy with a bar, where there is a terminal for one and calls `tell` each time; returns its report. */
export function showCopy(
  job: CopyJob,
  shell: Shell,
  tell?: (progress: CopyProgress) => Promise<void>,
): Promise<CopyReport> {
  return showJob(job, shell, ({ phase }) => PHASES[phase], tell);
}

/** What a copy did, in one sentence. */
export function describeCopy(report: CopyReport): string {
  const { size, movedBytes, zeroedBytes, skippedBytes, resumedBytes, durationMs } = report;
  const { leftOutBytes, retries } = report;
  const deeds = [`moved ${formatBytes(movedBytes)}`];
  if (resumedBytes > 0) deeds.push(`found ${formatBytes(resumedBytes)} done`);
  if (zeroedBytes > 0) deeds.push(`zeroed ${formatBytes(zeroedBytes)}`);
  deeds.push(`left ${formatBytes(skippedBytes)} alone`);
  if (leftOutBytes > 0) deeds.push(`left ${formatBytes(leftOutBytes)} out because it failed`);
  if (retries > 0) deeds.push(`made ${counted(retries, 'request')} again`);
  const rate = movedBytes > 0 ? ` (${formatRate(movedBytes, durationMs)})` : '';
  const time = formatDuration(durationMs);
  return `Copied a disk of ${formatBytes(size)}: ${deeds.join(', ')}, in ${time}${rate}.`;
}

/** What it took, where anything was moved; the rates only where they tell more than the average. */
export function describeEffort({
  requests,
  threads,
  planMs,
  rate,
  peakMemoryBytes,
}: CopyReport): string {
  if (requests === 0) return '';
  const inThreads = threads > 0 ? ` in ${counted(threads, 'thread')}` : '';
  const rates = rate.bytesPerSecond;
  const [least, most] = [Math.min(...rates), Math.max(...rates)];
  const spread = `, from ${formatRate(least, 1000)} to ${formatRate(most, 1000)}`;
  const parts = [
    `It took ${counted(requests, 'request')}${inThreads}${rates.length > 1 ? spread : ''}`,
    `${formatDuration(planMs)} to plan`,
    `and ${formatBytes(peakMemoryBytes)} of memory at most`,
  ];
  return `${parts.join(', ')}.\n`;
}
