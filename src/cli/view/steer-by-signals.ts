/** Lets people steer a running job by signals. */

import { LacunaError } from '../../errors/index.js';
import type { Job, JobProgress } from '../../job/index.js';
import { type Shell, secondSignal, withCode } from '../shell/index.js';

/** A server that is silent may hold a request for minutes, and somebody who waits should know. */
const FINISHING =
  'finishing what is in flight, which can take until the timeout where a server does not answer';
const AGAIN = `kill -USR2 ${process.pid}`;
const PAUSED = `lacuna: paused; "${AGAIN}" makes it go on\n`;
const GOES_ON = 'lacuna: goes on\n';

/**
 * While a job runs: the first interruption lets it finish what is in flight (the second ends the process, see
 * start.ts), and SIGUSR2 pauses it or makes it go on.
 *
 * @returns what takes the signals away again
 */
export function steerBySignals<Report, Progress extends JobProgress>(
  job: Job<Report, Progress>,
  shell: Shell,
): () => void {
  const stop = () => {
    job.stop();
    shell.note(`lacuna: ${FINISHING}; ${secondSignal(shell.signal)} stops at once\n`);
  };
  const letGo = pauseBySignal(job, shell);
  if (shell.signal.aborted) stop();
  shell.signal.addEventListener('abort', stop, { once: true });
  return () => {
    shell.signal.removeEventListener('abort', stop);
    letGo();
  };
}

/** SIGUSR2 alone, for a job that is begun with the shell's signal: it makes nothing that it would have to finish. */
export function pauseBySignal<Report, Progress extends JobProgress>(
  job: Job<Report, Progress>,
  shell: Shell,
): () => void {
  const toggle = () => (job.state === 'running' ? job.pause() : job.resume());
  job.on('paused', (error) => shell.note(error === undefined ? PAUSED : waiting(error, shell)));
  job.on('resumed', () => shell.note(GOES_ON));
  if (process.platform !== 'win32') process.on('SIGUSR2', toggle);
  return () => void process.off('SIGUSR2', toggle);
}

function waiting(error: Error, shell: Shell): string {
  const why = error instanceof LacunaError ? withCode(error, shell) : error.message;
  return `lacuna: paused: ${why}; "${AGAIN}" tries again, Ctrl-C gives up\n`;
}
