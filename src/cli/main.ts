#!/usr/bin/env node
import { Exit } from './exit.js';
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

process.exitCode = await run(process.argv.slice(2), shell);
