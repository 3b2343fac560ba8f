/** The flags of commands that take long: how much they tell meanwhile, and in which form. */
import { type Command, Option } from 'commander';
import type { ProgressForm, Shell } from '../shell/index.js';

interface OutputFlags {
  progress?: true | ProgressForm;
  quiet?: boolean;
  verbose?: boolean;
  json?: boolean;
}

const PROGRESS_TEXT =
  'report progress without a terminal too: a line every few seconds, or a JSON document (on standard error)';

/** The last flags that a command adds, so that they stand together at the end of its help. */
export function addOutputFlags(command: Command, shell: Shell): Command {
  const progress = new Option('-p, --progress', PROGRESS_TEXT);
  progress.flags = '-p, --progress[=json]';
  return command
    .addOption(progress)
    .option('-q, --quiet', 'print only errors, warnings, and the output of --json')
    .option('-v, --verbose', 'print each step, and when it began')
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
