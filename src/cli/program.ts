import { type Command, CommanderError, Help } from 'commander';
import { COMMANDS } from './commands/index.js';
import {
  checkReadable,
  Exit,
  exitCodeOfAbort,
  hintOf,
  oneLine,
  type Shell,
} from './shell/index.js';
import { ShellCommand } from './shell-command.js';
import { packageVersion } from './version.js';

const AFTER_HELP = `
A SOURCE or TARGET is one of
  disk.raw                                a file or a block device
  disk.qcow2                              an image with its backing files (any name with -f qcow2)
  nbd://host:10809/export                 an NBD server's export
  nbd+unix:///export?socket=/run/nbd.sock the same over a Unix socket
  [ nbdkit memory 1G ]                    an NBD server that is started for the command, and ends with it
  '{"driver":"file","filename":"disk.raw"}'
  driver=file,filename=disk.raw           a description, as JSON or dotted keys
  driver=nbd,server.type=inet,server.host=host,server.port=10809,request-timeout=30,reconnect-delay=60
                                          an export whose server may be silent for 30 s and gone for 60
  driver=qcow2,file.driver=file,file.filename=disk.qcow2,snapshot=before
                                          an image as it was in one of its snapshots

Exit codes: 0 done, 1 failed, 2 misuse, 3 done with something left out, 130 interrupted,
143 terminated, 129 hung up. SIGUSR1 has a command print how far it is.
LACUNA_DEBUG=1 adds stacks to error messages.`;

/**
 * Runs one command line with commander, which prints its own messages: of help and of misuse only the exit code is left to
 * tell. All other errors are thrown.
 */
export async function runProgram(argv: readonly string[], shell: Shell): Promise<void> {
  try {
    await parse(argv, shell);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    shell.exitCode = error.exitCode === 0 ? Exit.done : Exit.misuse;
    if (shell.signal.aborted) shell.exitCode = exitCodeOfAbort(shell.signal);
  }
}

async function parse(argv: readonly string[], shell: Shell): Promise<void> {
  // Help, for which commander does not wait.
  const texts: Promise<void>[] = [];
  try {
    const print = (text: string) => void texts.push(shell.print(text));
    const program = buildProgram(argv, shell, print);
    await addCommands(program, argv, shell);
    if (argv.includes('[')) await parseWithServers(program, argv, shell);
    else await program.parseAsync(argv, { from: 'user' });
  } finally {
    await Promise.all(texts);
  }
}

/** With NBD servers in brackets, which are there for as long as the command. */
async function parseWithServers(
  program: Command,
  argv: readonly string[],
  shell: Shell,
): Promise<void> {
  const { BracketedServers } = await import('./device/bracketed-servers.js');
  const servers = new BracketedServers(argv, shell);
  program.hook('preAction', (_program, command) => servers.startFor(command));
  try {
    await program.parseAsync(servers.argv, { from: 'user' });
  } catch (error) {
    const explained = await servers.explain(error);
    await servers.end().catch(() => {});
    throw explained;
  }
  await servers.end();
}

function buildProgram(
  argv: readonly string[],
  shell: Shell,
  print: (text: string) => void,
): Command {
  return (
    new ShellCommand('lacuna')
      .description('Copies virtual disks and moves only what has to move.')
      .version(packageVersion())
      .exitOverride()
      .configureOutput({
        writeOut: print,
        writeErr: (text) => shell.noteLines(text),
        outputError: (text, write) => write(misuse(text, argv)),
      })
      // `lacuna help` is a command like others, with an option of its own.
      .helpCommand(false)
      .showHelpAfterError('Run it with --help to see how it is used.')
      .addHelpText('after', AFTER_HELP)
      .hook('preAction', (_program, command) => {
        if (command.opts().json) shell.failureDocument = {};
        checkReadable(argv);
      })
  );
}

/** Adds all commands, but loads only those that the command line names: for the others their rows are enough. */
async function addCommands(program: Command, argv: readonly string[], shell: Shell): Promise<void> {
  const usages = new Map<string, string>();
  const isAll = COMMANDS.some(({ usage, needsAll }) => needsAll && argv.includes(nameOf(usage)));
  for (const { usage, summary, load } of COMMANDS) {
    const name = nameOf(usage);
    usages.set(name, usage);
    const command = program.command(name).summary(summary);
    if (isAll || argv.includes(name)) (await load())(command, shell);
  }
  // Last, because commands inherit it: it is for the list of these, and not for the lists of their own.
  program.configureHelp({
    subcommandTerm: (command) => usages.get(command.name()) ?? new Help().subcommandTerm(command),
  });
}

function nameOf(usage: string): string {
  return usage.split(' ')[0];
}

/** Commander's own line breaks are the last, and one before what it suggests; all others are what was typed. */
function misuse(text: string, argv: readonly string[]): string {
  const [, message, suggestion = ''] = /^(.*?)(\n\(Did you mean [^\n]*\))?\n?$/s.exec(text)!;
  const hint = hintOf(message, argv);
  const more = hint === undefined ? suggestion : `\n(Here: ${hint})`;
  return `${oneLine(message.replace(/^error: /, 'lacuna: '))}${more}\n`;
}
