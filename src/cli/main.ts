#!/usr/bin/env node
import { describeError, Exit } from './exit.js';
import { run } from './program.js';
import { processShell } from './shell.js';

const interruption = new AbortController();
const shell = processShell(interruption.signal);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The first asks every request to end, so that nothing is left behind; the second does not wait.
    if (interruption.signal.aborted) process.exit(Exit.interrupted);
    interruption.abort(new Error(signal));
  });
}

// What slips past a command is a fault of ours; it still ends in one message and an exit code.
process.on('uncaughtException', (error) => {
  shell.note(describeError(error, { stack: true }));
  process.exit(Exit.failed);
});

process.exitCode = await run(process.argv.slice(2), shell);
// Text that nobody reads would keep an interrupted process until its reader goes away.
if (interruption.signal.aborted) process.exit();
