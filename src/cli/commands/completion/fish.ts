import type { CommandFacts, OptionFacts } from '../../device/index.js';
import { flatten, nameOf, placeOf } from './known-words.js';

/** A script for fish 3 and later. */
export function fishCompletion(all: CommandFacts): string {
  const commands = flatten(all);
  const places = commands.map(placeOf).filter((place) => place !== '');
  return `# fish completion of lacuna, printed by "lacuna completion fish"
function __lacuna_at
  set -l place
  for word in (commandline -opc)[2..]
    set -l next $place $word
    contains -- "$next" ${places.map(quote).join(' ')}
    and set place $next
  end
  test "$place" = "$argv[1]"
end
${commands.flatMap(linesOf).join('\n')}
`;
}

function linesOf(command: CommandFacts): string[] {
  const at = `complete -c lacuna -n ${quote(`__lacuna_at ${quote(placeOf(command))}`)}`;
  const words = command.commands.map(
    (below) => `${at} -f -a ${quote(nameOf(below))} -d ${quote(below.summary)}`,
  );
  const [first] = command.arguments;
  if (first !== undefined && Array.isArray(first.values)) {
    words.push(`${at} -f -a ${quote(first.values.join(' '))}`);
  }
  return [...words, ...command.options.map((option) => `${at} ${optionLine(option)}`)];
}

function optionLine({ flags, value, values, text }: OptionFacts): string {
  const names = flags.map((flag) =>
    flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
  );
  const parts = [...names];
  if (value === 'needed') parts.push(values === 'files' ? '-r -F' : '-x');
  if (value !== 'none' && Array.isArray(values)) parts.push(`-a ${quote(values.join(' '))}`);
  return [...parts, `-d ${quote(text)}`].join(' ');
}

/** Inside single quotes fish knows two escapes. */
function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
