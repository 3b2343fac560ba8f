import { runProgram } from './program.js';
import {
  Exit,
  exitCodeOf,
  exitCodeOfAbort,
  noteError,
  printFailure,
  type Shell,
} from './shell/index.js';

/** Runs one command line and returns the exit code; every error ends up here, and as one message. */
export async function run(argv: readonly string[], shell: Shell): Promise<number> {
  try {
    await runProgram(argv, shell);
    return shell.exitCode;
  } catch (error) {
    await printFailure(error, shell);
    noteError(error, shell, { stack: Boolean(process.env.LACUNA_DEBUG) });
    if (shell.signal.aborted) return exitCodeOfAbort(shell.signal);
    const code = exitCodeOf(error);
    return code === Exit.failed ? shell.failureCode : code;
  }
}
