import { Argument, type Command } from 'commander';
import { type CommandFacts, factsOf } from '../../device/index.js';
import type { Shell } from '../../shell/index.js';
import { bashCompletion } from './bash.js';
import { fishCompletion } from './fish.js';
import { nameOf } from './known-words.js';
import { zshCompletion } from './zsh.js';

const SHELLS = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
} satisfies Record<string, (all: CommandFacts) => string>;

const EXAMPLES = `
Examples:
  lacuna completion bash > /etc/bash_completion.d/lacuna
  lacuna completion zsh > /usr/local/share/zsh/site-functions/_lacuna
  lacuna completion fish > ~/.config/fish/completions/lacuna.fish
  source <(lacuna completion bash)                # for this shell alone`;

/** Tells commander what `lacuna completion` takes, and what it does. */
export function registerCompletion(command: Command, shell: Shell): void {
  command
    .description('Prints a script with which a shell completes commands, options and their values.')
    .addArgument(new Argument('<shell>', 'for which shell').choices(Object.keys(SHELLS)))
    .addHelpText('after', EXAMPLES)
    .action((name: keyof typeof SHELLS) =>
      shell.print(SHELLS[name](withCommandsOfHelp(factsOf(command.parent!)))),
    );
}

/** `lacuna help` takes the name of a command, which is known only when all are there. */
function withCommandsOfHelp(all: CommandFacts): CommandFacts {
  const values = all.commands.map(nameOf);
  const commands = all.commands.map((command) =>
    nameOf(command) === 'help'
      ? { ...command, arguments: command.arguments.map((each) => ({ ...each, values })) }
      : command,
  );
  return { ...all, commands };
}
