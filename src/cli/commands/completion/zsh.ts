import type { CommandFacts, OptionFacts, Values } from '../../device/index.js';
import { flatten, nameOf, placeOf } from './known-words.js';

/** A function for zsh 5 and later, to lie in a folder of its `fpath` as `_lacuna`, or to be sourced. */
export function zshCompletion(all: CommandFacts): string {
  return `#compdef lacuna
# zsh completion of lacuna, printed by "lacuna completion zsh"
${flatten(all).map(functionOf).join('\n')}
if [[ $funcstack[1] == _lacuna ]]; then _lacuna "$@"; else compdef _lacuna lacuna; fi
`;
}

function functionOf(command: CommandFacts): string {
  const name = functionName(command);
  const specs = command.options.map((option) => `    ${optionSpec(option)}`);
  if (command.commands.length === 0) {
    const [first] = command.arguments;
    const rest = `'*:${first?.term ?? 'argument'}:${action(first?.values ?? 'files')}'`;
    return `${name}() {\n  _arguments -s \\\n${[...specs, `    ${rest}`].join(' \\\n')}\n}`;
  }
  const words = command.commands.map(
    (below) => `      ${quote(`${nameOf(below)}:${below.summary.replaceAll(':', '\\:')}`)}`,
  );
  return `${name}() {
  local curcontext=$curcontext state line
  _arguments -C -s \\
${[...specs, "    '1: :->command'", "    '*:: :->rest'"].join(' \\\n')}
  case $state in
    command) local -a commands=(
${words.join('\n')}
      )
      _describe -t commands command commands ;;
    rest) case $words[1] in
${command.commands.map((below) => `      ${nameOf(below)}) ${functionName(below)} ;;`).join('\n')}
      esac ;;
  esac
}`;
}

function functionName(command: CommandFacts): string {
  return ['_lacuna', ...placeOf(command).split(' ').filter(Boolean)].join('_');
}

function optionSpec({ flags, value, values, text }: OptionFacts): string {
  const told = `[${text.replace(/[[\]\\:]/g, '\\$&')}]`;
  const taken = value === 'needed' ? `:value:${action(values)}` : '';
  const all = flags.join(' ');
  return flags
    .map((flag) => {
      // "+" and "=" also allow the value in the same word.
      const joint = value === 'needed' ? (flag.startsWith('--') ? '=' : '+') : '';
      return quote(`(${all})${flag}${joint}${told}${taken}`);
    })
    .join(' ');
}

function action(values: Values): string {
  if (values === 'files') return '_files';
  return values === 'unknown' ? ' ' : `(${(values as readonly string[]).join(' ')})`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
