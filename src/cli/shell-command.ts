import { Command } from 'commander';
import type { ProgressForm } from './shell/index.js';

const FORMS: readonly string[] = ['line', 'json'] satisfies ProgressForm[];

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
