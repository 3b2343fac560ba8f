/** A process that runs one command line after the other, which saves the start of a process for each. */
import { runHere } from '../../support/run-here.js';
import { NOBODY } from './place.js';

export interface Order {
  readonly args: readonly string[];
  /** Ends it, as Ctrl-C does, once it has printed something. */
  readonly serves: boolean;
}

export interface Outcome {
  readonly code: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function send(outcome: Outcome): void {
  process.send?.(outcome);
}

async function carryOut({ args, serves }: Order): Promise<void> {
  const interruption = new AbortController();
  const printed = () => {
    if (serves) interruption.abort(new Error('SIGTERM'));
  };
  send(await runHere(args, { signal: interruption.signal, printed }));
}

if (process.argv.includes('nobody')) {
  process.setgroups?.([]);
  process.setgid?.(NOBODY);
  process.setuid?.(NOBODY);
}
process.umask(0o022);
process.on('message', (order: Order) => void carryOut(order));
// An exit would wait for a thread that hangs.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
process.on('uncaughtException', (error) => {
  send({ code: 'crashes', stdout: '', stderr: String(error.stack) });
});
send({ code: null, stdout: '', stderr: '' });
