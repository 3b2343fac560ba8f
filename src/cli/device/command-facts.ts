/** What commander knows of a command, for man pages and completion: all of it is said once, where the command is made. */
import { type Argument, type Command, Help, type Option } from 'commander';

export interface OptionFacts {
  /** As the help shows it: `-f, --format <format>`. */
  readonly term: string;
  /** `-f`, `--format`. */
  readonly flags: readonly string[];
  readonly text: string;
  /** The heading under which the help has it. */
  readonly group: string;
  /** Whether it takes a value; one that is optional stands behind `=`, or behind the flag. */
  readonly value: 'none' | 'needed' | 'optional';
  /** What the values are. */
  readonly values: Values;
}

export interface ArgumentFacts {
  /** `<source>`, `[target]`. */
  readonly term: string;
  readonly text: string;
  readonly values: Values;
}

/** Words to choose from, names of files, or what nobody can guess. */
export type Values = readonly string[] | 'files' | 'unknown';

export interface CommandFacts {
  /** `lacuna copy`, `lacuna bitmap add`. */
  readonly path: string;
  /** Behind the path: `[options] <source> [target]`. */
  readonly usage: string;
  readonly summary: string;
  readonly description: string;
  readonly arguments: readonly ArgumentFacts[];
  readonly options: readonly OptionFacts[];
  readonly commands: readonly CommandFacts[];
  /** What stands below the options. */
  readonly notes: string;
}

/** Values that are no paths, by what they are called. */
const NO_PATHS =
  /^(n|ms|size|seconds|cells|text|name|mode|policy|format|bitmaps?|point|other|share|type|domain|command|shell|disk.*|address.*|list|form)$/;

/** Everything about a command and those below it, as far as they are loaded. */
export function factsOf(command: Command): CommandFacts {
  const help = new Help();
  return {
    path: pathOf(command),
    usage: command.usage(),
    summary: command.summary() || asSummary(command.description()),
    description: command.description(),
    arguments: command.registeredArguments.map((argument) => ({
      term: help.argumentTerm(argument),
      text: help.argumentDescription(argument),
      values: valuesOf(argument.name(), argument),
    })),
    options: help.visibleOptions(command).map((option) => ({
      term: help.optionTerm(option),
      flags: [option.short, option.long].filter((flag) => flag !== undefined),
      text: help.optionDescription(option),
      group: option.helpGroupHeading ?? 'Options:',
      value: option.required ? 'needed' : option.optional ? 'optional' : 'none',
      values: valuesOf(/[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? '', option),
    })),
    commands: command.commands.map(factsOf),
    notes: notesOf(command),
  };
}

/** A sentence as the lists of commands have theirs. */
function asSummary(description: string): string {
  return description.replace(/^./, (letter) => letter.toLowerCase()).replace(/\.$/, '');
}

function pathOf(command: Command): string {
  const { parent } = command;
  return parent === null ? command.name() : `${pathOf(parent)} ${command.name()}`;
}

function valuesOf(name: string, { argChoices, description }: Argument | Option): Values {
  if (argChoices !== undefined) return argChoices;
  if (name === 'format' && /\braw or qcow2\b/.test(description)) return ['raw', 'qcow2'];
  return NO_PATHS.test(name.replace(/\.\.\.$/, '')) ? 'unknown' : 'files';
}

/** What `addHelpText` has added: commander tells it only with all of the help before it. */
function notesOf(command: Command): string {
  let text = '';
  const before = command.configureOutput();
  command.configureOutput({
    writeOut: (more) => {
      text += more;
    },
  });
  command.outputHelp();
  command.configureOutput(before);
  return text.slice(command.helpInformation().length).trim();
}
