import {
  Exit,
  exitCodeOf,
  exitCodeOfAbort,
  noteError,
  printFailure,
  type Shell,
} from './shell/index.js';
import { packageVersion } from './version.js';

/** Runs one command line and returns the exit code; every error ends up here, and as one message. */
export async function run(argv: readonly string[], shell: Shell): Promise<number> {
  try {
    if (isVersionAsked(argv)) await shell.print(`${packageVersion()}\n`);
    else await (await import('./program.js')).runProgram(argv, shell);
    return shell.exitCode;
  } catch (error) {
    await printFailure(error, shell);
    noteError(error, shell, { stack: Boolean(process.env.LACUNA_DEBUG) });
    if (shell.signal.aborted) return exitCodeOfAbort(shell.signal);
    const code = exitCodeOf(error);
    return code === Exit.failed ? shell.failureCode : code;
  }
}

/** Asked alone, it is told without loading all that understands command lines. */
function isVersionAsked([flag, ...others]: readonly string[]): boolean {
  return others.length === 0 && (flag === '--version' || flag === '-V');
}
