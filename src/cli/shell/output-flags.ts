/** The flags of commands that take long: how much they tell meanwhile, and in which form. */
import { Command, Option } from 'commander';
import type { ProgressForm, Shell } from './shell.js';

const FORMS: readonly string[] = ['line', 'json'] satisfies ProgressForm[];

interface OutputFlags {
  progress?: true | ProgressForm;
  quiet?: boolean;
  verbose?: boolean;
  json?: boolean;
}

const PROGRESS_TEXT =
  'tell how far it is also where there is no terminal: a line every few seconds, or a JSON document (on standard error)';

/** The last flags that a command adds, so that they stand together at the end of its help. */
export function addOutputFlags(command: Command, shell: Shell): Command {
  const progress = new Option('-p, --progress', PROGRESS_TEXT);
  progress.flags = '-p, --progress[=json]';
  return command
    .addOption(progress)
    .option('-q, --quiet', 'print nothing but errors, warnings, and what --json asks for')
    .option('-v, --verbose', 'tell each step, and when it began')
    .hook('preAction', () => heed(command.opts(), shell));
}

/** Two of the flags may be said together: then the quiet one counts, as of qemu-img. */
function heed({ progress, quiet, verbose, json }: OutputFlags, shell: Shell): void {
  shell.isVerbose = verbose;
  if (progress !== undefined) shell.progressForm = progress === true ? 'line' : progress;
  if (!quiet) return;
  shell.isQuiet = true;
  if (json) return;
  shell.print = async () => {};
  shell.paint = async () => {};
}

/** Tells of a step where people have asked for that; `text` is all our own, or printable. */
export function noteStep(text: string, shell: Pick<Shell, 'isVerbose' | 'note'>): void {
  if (!shell.isVerbose) return;
  shell.note(`lacuna: ${(performance.now() / 1000).toFixed(3)} s: ${text}\n`);
}

/**
 * A command whose flag may have a value behind `=`, and takes nothing of what follows it: commander would take the next
 * argument for the value of such a flag, and `-p disk.raw` is what people type.
 */
export class ShellCommand extends Command {
  override createCommand(name?: string): Command {
    return new ShellCommand(name);
  }

  override parseOptions(argv: string[]): ReturnType<Command['parseOptions']> {
    if (!this.options.some(({ long }) => long === '--progress')) return super.parseOptions(argv);
    const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
    const isForm = (argument: string, at: number) =>
      argument.startsWith('--progress=') && at < end && !this.#takesNext(argv[at - 1]);
    for (const argument of argv.filter(isForm)) this.#setForm(argument);
    return super.parseOptions(argv.filter((argument, at) => !isForm(argument, at)));
  }

  #takesNext(argument = ''): boolean {
    return this.options.some(
      ({ required, short, long }) => required && [short, long].includes(argument),
    );
  }

  #setForm(argument: string): void {
    const form = argument.slice('--progress='.length);
    if (!FORMS.includes(form)) {
      this.error(
        `error: option '${argument}' is invalid. It is --progress, or --progress=json for programs.`,
        { code: 'commander.invalidArgument' },
      );
    }
    this.setOptionValueWithSource('progress', form, 'cli');
  }
}
