import type { Readable, Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';
import picocolors from 'picocolors';
import type { InheritedFile } from '../../block/index.js';
import { abortedError, LacunaError } from '../../errors/index.js';
import { describeRefusal } from '../../util/index.js';
import { Exit } from './exit.js';
import { escapeControls, oneLine } from './printable.js';
import { standardInput, standardOutput, withoutBlocking } from './standard-streams.js';
import { TerminalLine } from './terminal-line.js';

type Colors = ReturnType<typeof picocolors.createColors>;

/** How progress is told in a log: `line` for people, `json` for programs. */
export type ProgressForm = 'line' | 'json';

/** What a command needs of the world around it; tests hand in their own. */
export interface Shell {
  /**
   * People's text and JSON, on standard output, with escapes for what could fool a terminal. Resolves when it is safe to
   * hand over more.
   *
   * @throws LacunaError ERR_ABORTED when the user interrupts and nobody has read the text; ERR_DEVICE_IO when it cannot
   * be written, unless its reader went away.
   */
  print(text: string): Promise<void>;
  /** The same for text with colours, all of it our own: nothing is escaped. */
  paint(text: string): Promise<void>;
  /** Standard input, for bytes. */
  input(): Readable;
  /** Standard input or output as the file or the block device that it is; undefined where it is none. */
  inherited(stream: 'input' | 'output'): Promise<InheritedFile | undefined>;
  /** Standard output, for bytes; its errors are then the caller's. */
  output(): Writable;
  /** A warning or another aside of one line, on standard error; a line break inside is escaped like all that is not text. */
  note(line: string): void;
  /** The same for several lines, which are all our own. */
  noteLines(text: string): void;
  /** Whether anybody still reads standard output; `lacuna map | head` stops reading early. */
  readonly listening: boolean;
  /** Where progress is drawn: on standard error, if that is a terminal. */
  readonly progressLine: TerminalLine | undefined;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Columns of the terminal that standard output goes to. */
  readonly width: number;
  /** The same of standard error. */
  readonly progressWidth: number;
  /** Whether characters beyond ASCII can be shown. */
  readonly unicode: boolean;
  readonly colors: Colors;
  /** Fires when the user interrupts. */
  readonly signal: AbortSignal;
  /** How far the work is, for somebody who asks with SIGUSR1; absent while nothing can be said. */
  tellProgress?: (() => string) | undefined;
  /** How progress is told where there is no terminal to draw it on; absent where nobody has asked for it. */
  progressForm?: ProgressForm;
  /** Whether nothing but errors and warnings is told. */
  isQuiet?: boolean;
  /** Whether each step is told. */
  isVerbose?: boolean | undefined;
  /** Whether SIGHUP has another meaning than to end the command. */
  usesHangUp?: boolean;
  /** A device whose format another flag than -f says, by its whole path. */
  formatFlag?: { readonly flag: '-F' | '-O'; readonly device: string };
  /** What the command will exit with; a command sets it when there is more to say than "done". */
  exitCode: number;
  /** What an error that is nobody's misuse exits with; 1 unless that means something else. */
  failureCode: number;
  /**
   * What the JSON document of a failure holds beside the failure itself; absent where there shall be none: without
   * `--json`, and where standard output has no room for it.
   */
  failureDocument?: object | undefined;
}

const DEFAULT_WIDTH = 80;

/** The shell of this process. */
export function processShell(signal: AbortSignal): Shell {
  const { stderr, env } = process;
  const stdout = standardOutput();
  let listening = true;
  // The writer is told as well.
  stdout.on('error', () => {
    listening = false;
  });
  stderr.on('error', () => {});
  const line = stderr.isTTY && env.TERM !== 'dumb' ? new TerminalLine(stderr) : undefined;
  process.on('exit', () => line?.clear());
  const aboveLine = (write: () => void) => (line === undefined ? write() : line.above(write));
  const paint = (text: string) => {
    if (!stdout.isTTY) return printTo(stdout, text, signal);
    let printed: Promise<void> | undefined;
    aboveLine(() => {
      printed = printTo(stdout, text, signal);
    });
    return printed!;
  };
  const noteLines = (text: string) => aboveLine(() => void stderr.write(escapeControls(text)));
  return {
    print: (text) => paint(escapeControls(text)),
    paint,
    input: standardInput,
    inherited,
    output: () => withoutBlocking(stdout),
    note: (line) => noteLines(oneLine(line)),
    noteLines,
    get listening() {
      return listening;
    },
    progressLine: line,
    isTerminal: stdout.isTTY === true,
    get width() {
      return stdout.columns || DEFAULT_WIDTH;
    },
    get progressWidth() {
      return stderr.columns || DEFAULT_WIDTH;
    },
    unicode: speaksUnicode(env),
    colors: picocolors.createColors(wantsColor(stdout, env)),
    signal,
    exitCode: Exit.done,
    failureCode: Exit.failed,
  };
}

async function inherited(stream: 'input' | 'output'): Promise<InheritedFile | undefined> {
  const { InheritedFile } = await import('../../block/index.js');
  return await InheritedFile.of(stream === 'input' ? 0 : 1);
}

/** Of a reader that went away, first and afterwards; that is no error of ours. */
const GONE: readonly (string | undefined)[] = ['EPIPE', 'ERR_STREAM_DESTROYED'];

function notPrinted(cause: NodeJS.ErrnoException): LacunaError {
  const { code: errno } = cause;
  const message = describeRefusal('Cannot write to standard output', errno ?? cause.name);
  return new LacunaError('ERR_DEVICE_IO', message, {
    cause,
    ...(errno !== undefined && { errno }),
  });
}

function printTo(stream: WriteStream, text: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError(signal));
    signal.addEventListener('abort', abort);
    stream.write(text, (error) => {
      signal.removeEventListener('abort', abort);
      if (!error || GONE.includes((error as NodeJS.ErrnoException).code)) resolve();
      else reject(notPrinted(error));
    });
    // Last words after an interruption are said, but not waited for.
    if (signal.aborted && stream.writableLength > 0) abort();
  });
}

/** The locale's character set, from the variable that wins in POSIX. */
function speaksUnicode(env: NodeJS.ProcessEnv): boolean {
  return /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
}

/** Picocolors also colours pipes where `CI` is set; text that a program may read stays plain. */
function wantsColor(stdout: WriteStream, env: NodeJS.ProcessEnv): boolean {
  return picocolors.isColorSupported && (stdout.isTTY === true || Boolean(env.FORCE_COLOR));
}
