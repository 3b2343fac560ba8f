import { PassThrough } from 'node:stream';
import picocolors from 'picocolors';
// Loaded by the command when it begins. In a process of vitest, Node 20 was seen to give an empty commander then.
import '#dist/cli/program.js';
import { run } from '#dist/cli/run.js';
import { escapeControls, oneLine } from '#dist/cli/shell/printable.js';
import type { Shell } from '#dist/cli/shell/shell.js';
import { TerminalLine } from '#dist/cli/shell/terminal-line.js';
import type { CliResult } from './run-cli.js';

export interface HereOptions {
  terminal?: Pick<NodeJS.WriteStream, 'write'>;
  /** Called with what SIGUSR1 would be answered with from now on. */
  onProgressSet?(tell: Shell['tellProgress']): void;
  /** Stands for Ctrl-C. */
  signal?: AbortSignal;
  /** Called after each text for standard output. */
  printed?(): void;
}

/** Runs a command line in this process, which is many times faster than a process of its own; no signals. */
export async function runHere(
  args: readonly string[],
  { terminal, onProgressSet, signal = new AbortController().signal, printed }: HereOptions = {},
): Promise<CliResult> {
  const result: CliResult = { code: null, stdout: '', stderr: '' };
  const print = async (text: string) => {
    result.stdout += text;
    printed?.();
  };
  const noteLines = (text: string) => {
    result.stderr += escapeControls(text);
  };
  const shell: Shell = {
    print: (text) => print(escapeControls(text)),
    paint: print,
    inherited: async () => undefined,
    input: () => new PassThrough().end(),
    output: () => new PassThrough().resume(),
    note: (line) => noteLines(oneLine(line)),
    noteLines,
    listening: true,
    progressLine: terminal && new TerminalLine(terminal, () => true),
    progressWidth: 80,
    isTerminal: false,
    width: 80,
    unicode: false,
    colors: picocolors.createColors(false),
    signal,
    set tellProgress(tell: Shell['tellProgress']) {
      onProgressSet?.(tell);
    },
    exitCode: 0,
    failureCode: 1,
  };
  result.code = await run(args, shell);
  return result;
}
