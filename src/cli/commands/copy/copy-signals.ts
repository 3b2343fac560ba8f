/** Lets people steer a running copy by signals. */

import type { CopyJob, StreamJob } from '../../../copy/index.js';
import { LacunaError } from '../../../errors/index.js';
import { type Shell, secondSignal, withCode } from '../../shell/index.js';

/** A server that is silent may hold a request for minutes, and somebody who waits should know. */
const FINISHING =
  'finishing what is in flight, which can take until the timeout where a server does not answer';
const AGAIN = `kill -USR2 ${process.pid}`;
const PAUSED = `lacuna: paused; "${AGAIN}" makes it go on\n`;
const GOES_ON = 'lacuna: goes on\n';

/**
 * While a copy runs: the first interruption lets it finish what is in flight (the second ends the process, see
 * start.ts), and SIGUSR2 pauses it or makes it go on.
 *
 * @returns what takes the signals away again
 */
export function steerBySignals(job: CopyJob, shell: Shell): () => void {
  const stop = () => {
    job.stop();
    shell.note(`lacuna: ${FINISHING}; ${secondSignal(shell.signal)} stops at once\n`);
  };
  const toggle = () => (job.progress().state === 'running' ? job.pause() : job.resume());
  job.on('paused', () => shell.note(PAUSED));
  job.on('resumed', () => shell.note(GOES_ON));
  job.on('stopped', (error) => {
    const why = error instanceof LacunaError ? withCode(error, shell) : error.message;
    const text = `stopped: ${why}; "${AGAIN}" tries again, Ctrl-C gives up`;
    shell.note(`lacuna: ${text}\n`);
  });
  if (shell.signal.aborted) stop();
  shell.signal.addEventListener('abort', stop, { once: true });
  if (process.platform !== 'win32') process.on('SIGUSR2', toggle);
  return () => {
    shell.signal.removeEventListener('abort', stop);
    process.off('SIGUSR2', toggle);
  };
}

/**
 * While a stream is copied: SIGUSR2 pauses it or makes it go on.
 *
 * @returns what takes the signal away again
 */
export function pauseBySignal(job: StreamJob, shell: Shell): () => void {
  let isPaused = false;
  const toggle = () => {
    isPaused = !isPaused;
    if (isPaused) job.pause();
    else job.resume();
    shell.note(isPaused ? PAUSED : GOES_ON);
  };
  if (process.platform !== 'win32') process.on('SIGUSR2', toggle);
  return () => void process.off('SIGUSR2', toggle);
}
