import type { Command } from 'commander';
import { factsOf } from '../../device/index.js';
import type { Shell } from '../../shell/index.js';
import { manPage } from './man-page.js';

const EXAMPLES = `
Examples:
  lacuna help copy
  lacuna help bitmap add
  lacuna help --man copy | man -l -

Man pages are installed with the package, where npm installs it globally: man lacuna-copy.`;

/** Tells commander what `lacuna help` takes, and what it does. */
export function registerHelp(command: Command, shell: Shell): void {
  command
    .description('Shows the help of the program or of a command, or its man page.')
    .argument('[command...]', 'the command')
    .option('--man', 'print a man page, for "man -l -"')
    .addHelpText('after', EXAMPLES)
    .action(async (names: readonly string[], { man }: { man?: boolean }) => {
      const wanted = find(command, names);
      if (!man) return wanted.outputHelp();
      await shell.print(manPage(factsOf(wanted), command.parent?.version() ?? ''));
    });
}

/** The command of these names; commander ends the command line where there is none. */
function find(help: Command, names: readonly string[]): Command {
  const program = help.parent!;
  return names.reduce((found, name) => {
    const below = found.commands.find((command) => command.name() === name);
    return below ?? program.error(`error: unknown command '${name}'`);
  }, program);
}
