import type { Command } from 'commander';
import type { Shell } from './shell.js';

/** A command as the list of commands shows it, without loading it. */
export interface CommandRow {
  /** Its name and what it takes, such as `info [options] <source>`. */
  readonly usage: string;
  readonly summary: string;
  /** Whether it tells of all others, which are loaded for it. */
  readonly needsAll?: boolean;
  /** Loads the function that gives the command its description, arguments, options and action. */
  load(): Promise<(command: Command, shell: Shell) => void>;
}
