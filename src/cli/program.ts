import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { registerBackup } from './commands/backup/index.js';
import { registerBitmap } from './commands/bitmap/index.js';
import { registerCommit } from './commands/commit/index.js';
import { registerCompare } from './commands/compare/index.js';
import { registerCopy } from './commands/copy/index.js';
import { registerDemo } from './commands/demo/index.js';
import { registerDiff } from './commands/diff/index.js';
import { registerDigest } from './commands/digest/index.js';
import { registerInfo } from './commands/info/index.js';
import { registerList } from './commands/list/index.js';
import { registerMap } from './commands/map/index.js';
import { registerPopulate } from './commands/populate/index.js';
import { registerPrune } from './commands/prune/index.js';
import { registerRebase } from './commands/rebase/index.js';
import { registerRestore } from './commands/restore/index.js';
import { registerServe } from './commands/serve/index.js';
import { registerUnlock } from './commands/unlock/index.js';
import { registerVerify } from './commands/verify/index.js';
import {
  checkReadable,
  Exit,
  exitCodeOf,
  exitCodeOfAbort,
  noteError,
  oneLine,
  printFailure,
  type Shell,
} from './shell/index.js';

const AFTER_HELP = `
A SOURCE or TARGET is one of
  disk.raw                                a file or a block device
  disk.qcow2                              an image with its backing files (any name with -f qcow2)
  nbd://host:10809/export                 an NBD server's export
  nbd+unix:///export?socket=/run/nbd.sock the same over a Unix socket
  '{"driver":"file","filename":"disk.raw"}'
  driver=file,filename=disk.raw           a description, as JSON or dotted keys
  driver=nbd,server.type=inet,server.host=host,server.port=10809,request-timeout=30,reconnect-delay=60
                                          an export whose server may be silent for 30 s and gone for 60
  driver=qcow2,file.driver=file,file.filename=disk.qcow2,snapshot=before
                                          an image as it was in one of its snapshots

Exit codes: 0 done, 1 failed, 2 misuse, 3 done with something left out, 130 interrupted,
143 terminated, 129 hung up. SIGUSR1 has a command print how far it is.
LACUNA_DEBUG=1 adds stacks to error messages.`;

/** Runs one command line and returns the exit code; every error ends up here, and as one message. */
export async function run(argv: readonly string[], shell: Shell): Promise<number> {
  try {
    await parse(argv, shell);
    return shell.exitCode;
  } catch (error) {
    // Commander has printed its own message already.
    if (!(error instanceof CommanderError)) {
      await printFailure(error, shell);
      noteError(error, shell, { stack: Boolean(process.env.LACUNA_DEBUG) });
    }
    if (shell.signal.aborted) return exitCodeOfAbort(shell.signal);
    const code = exitCodeOf(error);
    return code === Exit.failed ? shell.failureCode : code;
  }
}

async function parse(argv: readonly string[], shell: Shell): Promise<void> {
  // Help and the version; Commander does not wait for them.
  const texts: Promise<void>[] = [];
  try {
    const print = (text: string) => void texts.push(shell.print(text));
    await buildProgram(argv, shell, print).parseAsync(argv, { from: 'user' });
  } finally {
    await Promise.all(texts);
  }
}

function buildProgram(
  argv: readonly string[],
  shell: Shell,
  print: (text: string) => void,
): Command {
  const program = new Command('lacuna')
    .description('Copies virtual disks and moves only what has to move.')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({
      writeOut: print,
      writeErr: (text) => shell.noteLines(text),
      outputError: (text, write) => write(misuse(text)),
    })
    .showHelpAfterError('Run it with --help to see how it is used.')
    .addHelpText('after', AFTER_HELP)
    .hook('preAction', (_program, command) => {
      if (command.opts().json) shell.failureDocument = {};
      checkReadable(argv);
    });
  registerCopy(program, shell);
  registerMap(program, shell);
  registerInfo(program, shell);
  registerCompare(program, shell);
  registerDigest(program, shell);
  registerPopulate(program, shell);
  registerServe(program, shell);
  registerBitmap(program, shell);
  registerCommit(program, shell);
  registerRebase(program, shell);
  registerBackup(program, shell);
  registerList(program, shell);
  registerRestore(program, shell);
  registerVerify(program, shell);
  registerPrune(program, shell);
  registerDiff(program, shell);
  registerUnlock(program, shell);
  registerDemo(program, shell);
  return program;
}

/** Commander's own line breaks are the last, and one before what it suggests; all others are what was typed. */
function misuse(text: string): string {
  const [, message, suggestion = ''] = /^(.*?)(\n\(Did you mean [^\n]*\))?\n?$/s.exec(text)!;
  return `${oneLine(message.replace(/^error: /, 'lacuna: '))}${suggestion}\n`;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
