/** What all three shells are told. */
import type { CommandFacts } from '../../device/index.js';

/** A command and all below it, in one list. */
export function flatten(facts: CommandFacts): CommandFacts[] {
  return [facts, ...facts.commands.flatMap(flatten)];
}

/** The names of a command without that of the program: `bitmap add`; empty for the program itself. */
export function placeOf({ path }: CommandFacts): string {
  return path.split(' ').slice(1).join(' ');
}

export function nameOf({ path }: CommandFacts): string {
  return path.slice(path.lastIndexOf(' ') + 1);
}
