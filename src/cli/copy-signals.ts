/** Lets people steer a running copy by signals. */

import type { CopyJob } from '../copy/index.js';
import { LacunaError } from '../errors/index.js';
import type { Shell } from './shell.js';

/** A server that is silent may hold a request for minutes, and somebody who waits should know. */
const FINISHING =
  'finishing what is in flight, which a silent server holds up until its time is over; Ctrl-C again stops at once';

/**
 * While a copy runs: the first interruption lets it finish what is in flight (the second ends the process, see
 * main.ts), and SIGUSR2 pauses it or makes it go on. Not SIGUSR1, which belongs to Node's debugger.
 *
 * @returns what takes the signals away again
 */
export function steerBySignals(job: CopyJob, shell: Shell): () => void {
  const stop = () => {
    job.stop();
    shell.note(`lacuna: ${FINISHING}\n`);
  };
  const toggle = () => (job.progress().state === 'running' ? job.pause() : job.resume());
  const again = `kill -USR2 ${process.pid}`;
  job.on('paused', () => shell.note(`lacuna: paused; "${again}" makes it go on\n`));
  job.on('resumed', () => shell.note('lacuna: goes on\n'));
  job.on('stopped', (error) => {
    const code = error instanceof LacunaError ? ` (${error.code})` : '';
    const text = `stopped: ${error.message}${code}; "${again}" tries again, Ctrl-C gives up`;
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
