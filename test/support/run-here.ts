import { PassThrough } from 'node:stream';
import picocolors from 'picocolors';
import { run } from '#dist/cli/program.js';
import type { Shell } from '#dist/cli/shell.js';
import type { CliResult } from './run-cli.js';

/** Runs a command line in this process, which is many times faster than a process of its own; no signals. */
export async function runHere(
  args: readonly string[],
  { terminal }: { terminal?: NodeJS.WriteStream } = {},
): Promise<CliResult> {
  const result: CliResult = { code: null, stdout: '', stderr: '' };
  const shell: Shell = {
    print: async (text) => {
      result.stdout += text;
    },
    input: () => new PassThrough().end(),
    output: () => new PassThrough().resume(),
    note: (text) => {
      result.stderr += text;
    },
    listening: true,
    progressStream: terminal,
    isTerminal: false,
    width: 80,
    unicode: false,
    colors: picocolors.createColors(false),
    signal: new AbortController().signal,
    exitCode: 0,
    failureCode: 1,
  };
  result.code = await run(args, shell);
  return result;
}
