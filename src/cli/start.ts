/** Runs the command line of this process; see main.ts for what has happened before. */

import { run } from './run.js';
import {
  ENDING_SIGNALS,
  Exit,
  exitCodeOfSignal,
  Interruption,
  noteError,
  processShell,
} from './shell/index.js';
import { formatDuration } from './text/index.js';

const interruption = new AbortController();
const shell = processShell(interruption.signal);

for (const signal of ENDING_SIGNALS) {
  process.on(signal, () => {
    if (signal === 'SIGHUP' && shell.usesHangUp) return;
    // The first asks every request to end, so that nothing is left behind; the second does not wait.
    if (interruption.signal.aborted) process.exit(exitCodeOfSignal(signal));
    interruption.abort(new Interruption(signal));
  });
}

// As dd and qemu-img do it.
process.on('SIGUSR1', () => {
  const running = () => `running for ${formatDuration(performance.now())}`;
  shell.note(`lacuna: ${(shell.tellProgress ?? running)()}\n`);
});

// What slips past a command is a fault of ours; it still ends in one message and an exit code.
process.on('uncaughtException', (error) => {
  noteError(error, shell, { stack: true });
  process.exit(Exit.failed);
});

process.exitCode = await run(process.argv.slice(2), shell);
// Text that nobody reads would keep an interrupted process until its reader goes away.
if (interruption.signal.aborted) process.exit();
