import type { CommandFacts, OptionFacts, Values } from '../../device/index.js';
import { flatten, nameOf, placeOf } from './known-words.js';

/** A script for bash 4 and later, which needs no other. */
export function bashCompletion(all: CommandFacts): string {
  const commands = flatten(all);
  const places = commands.map(placeOf).filter((place) => place !== '');
  return `# bash completion of lacuna, printed by "lacuna completion bash"
_lacuna() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} place='' i
  COMPREPLY=()
  # "=" is a word of its own to bash.
  if [[ $cur == = ]]; then cur=''
  elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$place\${place:+ }\${COMP_WORDS[i]}" in
      ${places.map((place) => `'${place}'`).join('|')}) place="$place\${place:+ }\${COMP_WORDS[i]}" ;;
    esac
  done
  case "$place $prev" in
${commands.flatMap((command) => command.options.flatMap((option) => valueCase(command, option))).join('\n')}
  esac
  case "$place" in
${commands.map(wordCase).join('\n')}
  esac
}
complete -o default -F _lacuna lacuna
`;
}

/** Without an answer the shell offers files, unless it is told not to. */
const NOTHING = 'compopt +o default 2>/dev/null';

function answer(values: Values): string {
  if (values === 'files') return '';
  if (values === 'unknown') return NOTHING;
  return `COMPREPLY=($(compgen -W '${values.join(' ')}' -- "$cur")); ${NOTHING}`;
}

function valueCase(command: CommandFacts, { flags, value, values }: OptionFacts): string[] {
  if (value !== 'needed') return [];
  const patterns = flags.map((flag) => `'${placeOf(command)} ${flag}'`).join('|');
  return [`    ${patterns}) ${[answer(values), 'return'].filter(Boolean).join('; ')} ;;`];
}

function wordCase(command: CommandFacts): string {
  const flags = command.options.flatMap((option) => option.flags).join(' ');
  const below = command.commands.map(nameOf).join(' ');
  const [first] = command.arguments;
  const words = below === '' ? answer(first?.values ?? 'files') : answer(below.split(' '));
  return `    '${placeOf(command)}') if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '${flags}' -- "$cur")); ${NOTHING}
      else ${words || ':'}; fi ;;`;
}
